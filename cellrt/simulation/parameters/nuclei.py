"""What nuclei look like, and how to draw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellrt.simulation.parameters.imaging import log_uniform


@dataclass(frozen=True)
class NucleiParameters:
    """What the nuclei look like before the microscope sees them.

    Intensities are relative to the typical nucleus, 1.

    Attributes
    ----------
    arrangement : str
        ``"scattered"``, ``"clumps"``, ``"dense"``, ``"embryo"`` (filled ball),
        ``"shell"`` (hollow ball, like a blastocyst) or ``"sheet"``.
    filling : float
        Share of the region's volume inside nuclei.
    contact : float
        Smallest centre distance relative to the sum of the radii; below 1 nuclei
        touch and flatten each other.
    diameter_cv : float
        Relative standard deviation of the diameter.
    elongation : float
        Typical ratio of the longest to the shortest axis, 1 or more.
    roughness : float
        Relative standard deviation of the radius around the ellipsoid.
    flat_share : float
        Share of nuclei that are flattened along the tissue's normal: the radius
        of an embryo, z elsewhere.
    gap_voxels : float
        Width of the dark seam between nuclei that touch.
    brightness_cv : float
        Standard deviation of the logarithm of the nuclei's brightness.
    mitotic_share, dim_share : float
        Shares of bright, plate-like and of weakly stained nuclei.
    texture : float
        Relative standard deviation of the chromatin texture.
    texture_scale : float
        Size of the texture's grains relative to the diameter.
    nucleoli : float
        Mean number of dark nucleoli per nucleus.
    chromocentres : float
        Mean number of bright chromocentres per nucleus.
    rim : float
        Extra brightness at the envelope (negative: nuclei fade towards the rim).
    rim_width : float
        Depth over which the rim falls to 1/e, relative to the diameter.
    core : float
        Brightness inside of the rim; below 1 for stains of the envelope.
    haze : float
        Level of the cytoplasm's or tissue's autofluorescence.
    haze_contrast : float
        Relative variation of the haze.
    debris : float
        Expected bright specks per million voxels.
    """

    arrangement: str = "clumps"
    filling: float = 0.2
    contact: float = 0.9
    diameter_cv: float = 0.15
    elongation: float = 1.4
    roughness: float = 0.06
    flat_share: float = 0.0
    gap_voxels: float = 0.5
    brightness_cv: float = 0.3
    mitotic_share: float = 0.03
    dim_share: float = 0.05
    texture: float = 0.2
    texture_scale: float = 0.15
    nucleoli: float = 1.0
    chromocentres: float = 2.0
    rim: float = 0.1
    rim_width: float = 0.2
    core: float = 1.0
    haze: float = 0.05
    haze_contrast: float = 0.5
    debris: float = 5.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> NucleiParameters:
        """Draw nuclei from a wide but realistic range.

        Measured on real stacks with ground truth (mouse embryos of BBBC050, ovule
        nuclei, two small crops): standard deviation over mean of 0.16 to 0.45 between nuclei and of
        0.39 to 0.74 within one (noise included), signal just outside of a nucleus
        0.12 to 0.33 of that inside. The draws centre on these
        figures; the most regular embryos lie outside their range.
        """
        arrangement = str(
            rng.choice(
                ["scattered", "clumps", "dense", "embryo", "shell", "sheet"],
                p=[0.16, 0.2, 0.3, 0.12, 0.12, 0.1],
            )
        )
        low, high = {
            "scattered": (0.04, 0.15),
            "clumps": (0.08, 0.25),
            "dense": (0.2, 0.55),
            "embryo": (0.15, 0.5),
            "shell": (0.2, 0.6),
            "sheet": (0.2, 0.6),
        }[arrangement]
        flattened = 0.6 if arrangement in ("shell", "sheet") else 0.12
        envelope = bool(rng.uniform() < 0.06)
        return cls(
            arrangement=arrangement,
            filling=rng.uniform(low, high),
            contact=rng.uniform(0.72, 1.08),
            diameter_cv=rng.uniform(0.04, 0.3) if rng.uniform() < 0.8 else rng.uniform(0.3, 0.4),
            elongation=1.0 + rng.gamma(2.0, 0.22),
            roughness=rng.uniform(0.01, 0.1),
            flat_share=rng.uniform(0, 1) if rng.uniform() < flattened else 0.0,
            gap_voxels=rng.uniform(0.0, 2.0),
            brightness_cv=rng.uniform(0.08, 0.42),
            mitotic_share=rng.uniform(0, 0.12) if rng.uniform() < 0.6 else 0.0,
            dim_share=rng.uniform(0, 0.2) if rng.uniform() < 0.6 else 0.0,
            texture=rng.uniform(0.05, 0.6),
            texture_scale=rng.uniform(0.08, 0.35),
            nucleoli=rng.uniform(0, 3) if rng.uniform() < 0.6 else 0.0,
            chromocentres=rng.uniform(0, 10) if rng.uniform() < 0.35 else 0.0,
            rim=rng.uniform(0.6, 1.5) if envelope else rng.uniform(-0.5, 0.5),
            rim_width=rng.uniform(0.06, 0.12) if envelope else rng.uniform(0.1, 0.3),
            core=rng.uniform(0.1, 0.6) if envelope else 1.0,
            haze=log_uniform(rng, 0.005, 0.3),
            haze_contrast=rng.uniform(0.2, 1.0),
            debris=rng.uniform(0, 40) if rng.uniform() < 0.5 else 0.0,
        )
