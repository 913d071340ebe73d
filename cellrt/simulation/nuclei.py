"""Simulated stacks of fluorescent nuclei."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation.microscope.imaging import ImagingParameters, degrade, log_uniform
from cellrt.simulation.microscope.sampling import sampling_grid
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.stain.chromatin import paint_nuclei
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.packing import place_nuclei
from cellrt.simulation.structure.shapes import random_radius_tables, rasterise


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


def simulate_nuclei(
    shape: tuple[int, int, int] = (64, 96, 96),
    *,
    diameter_voxels: float = 16.0,
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    nuclei: NucleiParameters | None = None,
    imaging: ImagingParameters | None = None,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate a stack of nuclei with known labels.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the stack.
    diameter_voxels : float
        Mean diameter of the sphere of a nucleus's volume, in voxels along y and x.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm. Nuclei have their shape in µm: a size along z
        larger than along y and x samples them coarser along z.
    nuclei : NucleiParameters, optional
        Drawn with `NucleiParameters.random` by default.
    imaging : ImagingParameters, optional
        Drawn with `ImagingParameters.random` by default.
    seed : int or numpy.random.Generator
        With the same seed and parameters the stack comes out byte for byte.

    Returns
    -------
    SimulatedStack

    Raises
    ------
    UsageError
        When shape, voxel size or diameter make no sense.

    Examples
    --------
    >>> stack = simulate_nuclei((16, 48, 48), voxel_size_um=(1.0, 0.5, 0.5), seed=1)
    >>> stack.image.shape, stack.image.dtype.name, stack.labels.dtype.name
    ((16, 48, 48), 'uint16', 'int32')
    """
    grid = sampling_grid(shape, voxel_size_um, diameter_voxels)
    rng = np.random.default_rng(seed)
    nuclei = NucleiParameters.random(rng) if nuclei is None else nuclei
    imaging = ImagingParameters.random(rng) if imaging is None else imaging
    fine = grid.fine_shape
    centres, diameters, normals = place_nuclei(
        fine,
        diameter_voxels,
        nuclei.diameter_cv,
        nuclei.filling,
        nuclei.contact,
        nuclei.arrangement,
        rng,
    )
    n = len(centres)
    mitotic = rng.uniform(size=n) < nuclei.mitotic_share
    ratios = _axis_ratios(n, nuclei, mitotic, rng)
    flat = rng.uniform(size=n) < nuclei.flat_share
    ratios[flat, 2] = ratios[flat].min(axis=1) * rng.uniform(0.45, 0.85, np.count_nonzero(flat))
    normals[~flat] = np.nan
    # Condensed chromosomes take less room than the nucleus they come from.
    tables = random_radius_tables(
        diameters * np.where(mitotic, 0.7, 1.0),
        ratios,
        np.full(n, nuclei.roughness),
        rng,
        normals=normals,
    )
    owner, depth, rival = rasterise(fine, centres, tables)
    labels = np.where(depth > 0, owner, 0).astype(np.int32)
    signal = paint_nuclei(
        owner, depth, rival, centres, diameters, mitotic, diameter_voxels, nuclei, rng
    )
    signal += _haze(fine, diameter_voxels, nuclei, rng)
    image = degrade(signal, imaging, rng, z_step=grid.z_step, slices=grid.slices)
    labels = keep_largest_components(
        grid.take_slices(labels), min_voxels=max(3, int(0.02 * diameter_voxels**3 / grid.z_step))
    )
    parameters = {
        "seed": json_seed(seed),
        "shape": list(grid.shape),
        "diameter_voxels": diameter_voxels,
        "voxel_size_um": list(grid.voxel_size_um),
        "nuclei": asdict(nuclei),
        "imaging": asdict(imaging),
    }
    return SimulatedStack(image, labels, grid.voxel_size_um, "nuclei", parameters)


def _axis_ratios(
    n: int, nuclei: NucleiParameters, mitotic: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    stretch = 1 + (nuclei.elongation - 1) * rng.uniform(0.3, 1.7, n)
    prolate = rng.uniform(size=n) < 0.6
    ratios = np.ones((n, 3))
    ratios[:, 0] = stretch
    ratios[:, 1] = np.where(prolate, np.exp(rng.normal(0, 0.08, n)), stretch)
    ratios[mitotic] = (1.0, 0.85, 0.38)
    return ratios


def _haze(
    shape: tuple[int, int, int],
    diameter: float,
    nuclei: NucleiParameters,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    slow = smooth_noise(shape, 3 * diameter, rng)
    fine = smooth_noise(shape, 0.4 * diameter, rng)
    haze = np.exp(np.float32(nuclei.haze_contrast) * (0.8 * slow + 0.4 * fine))
    haze *= np.float32(nuclei.haze)
    for _ in range(rng.poisson(nuclei.debris * haze.size / 1e6)):
        z, y, x = (int(rng.integers(n)) for n in shape)
        reach = int(rng.integers(1, 3))
        haze[z : z + reach, y : y + reach, x : x + reach] += np.float32(rng.uniform(0.5, 6))
    return np.asarray(haze, dtype=np.float32)
