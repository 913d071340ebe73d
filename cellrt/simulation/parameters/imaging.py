"""Properties of a microscope and its camera, and how to draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ImagingParameters:
    """Properties of the microscope and its camera.

    Lengths are in voxels of the isotropic grid on which the structure is drawn
    (the size of an output voxel along y and x). Intensities are relative to the
    structure's mean signal after blur.

    Attributes
    ----------
    blur_xy_voxels, blur_z_voxels : float
        Standard deviations of the in-focus Gaussian.
    tail_weight, tail_scale : float
        Share of the light in a second, wide Gaussian (out-of-focus light) and
        how many times wider it is.
    depth_decay : float
        Share of the signal that is lost from the first to the last slice.
    depth_blur : float
        Extra blur at the last slice, as a multiple of the blur at the first.
    depth_reversed : bool
        The objective is at the last slice.
    shading : float
        Relative standard deviation of the uneven illumination.
    background : float
        Constant light everywhere.
    photons : float
        Expected photons in a voxel of mean structure signal; 0 means no shot noise.
    gain : float
        Grey values per photon (per unit of signal without shot noise).
    em_gain : bool
        The amplification of every single photon is random (exponential), as in
        electron-multiplying cameras: it doubles the variance of shot noise.
    read_noise : float
        Standard deviation of the camera's noise in grey values.
    offset : float
        Grey value of darkness.
    noise_blur_voxels : float
        Standard deviation of a blur after the noise (resampling, denoising and
        deconvolution correlate the noise of neighbours).
    fixed_pattern : float
        Relative standard deviation of the gain between the camera's pixels, the same in all slices.
    stripes : float
        The same between lines.
    flicker : float
        Relative standard deviation of the light between slices.
    jitter_voxels : float
        Standard deviation of lateral shifts between slices.
    missing_slices : float
        Probability that a slice is nearly dark or repeats its neighbour.
    bits : int
        8 or 16. With 8 the grey values are stretched to 0..255.
    saturation : float
        With 8 bits, share of the structure's brightest voxels that are cut off.
    """

    blur_xy_voxels: float = 1.0
    blur_z_voxels: float = 2.0
    tail_weight: float = 0.15
    tail_scale: float = 5.0
    depth_decay: float = 0.2
    depth_blur: float = 0.3
    depth_reversed: bool = False
    shading: float = 0.08
    background: float = 0.08
    photons: float = 40.0
    gain: float = 8.0
    em_gain: bool = False
    read_noise: float = 5.0
    offset: float = 100.0
    noise_blur_voxels: float = 0.0
    fixed_pattern: float = 0.0
    stripes: float = 0.0
    flicker: float = 0.0
    jitter_voxels: float = 0.0
    missing_slices: float = 0.0
    bits: int = 16
    saturation: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator, kind: str = "nuclei") -> ImagingParameters:
        """Draw a microscope from a wide but realistic range.

        The ranges enclose what was measured on real stacks (variance against local
        mean, autocorrelation of the residual, ratios of background to cells).

        ==================================  =======================================
        mouse embryos (BBBC050)             5 to 40 photons in nuclei, random gain
                                            of about 12 to 25 grey values, offset 96
        Arabidopsis ovule nuclei            8 photons, background 0.35 of the nuclei
        meristem walls (PlantSeg)           25 photons
        lateral-root nuclei and walls       90 and 850 photons, pixel gain varies by
                                            9 and 4 percent, lines by 2 percent
        mouse brain (CellSeg3D)             correlated noise (0.74 at lag 1 along x)
        clean confocal nuclei               about 1000 photons
        ==================================  =======================================

        Parameters
        ----------
        rng : numpy.random.Generator
        kind : str
            ``"nuclei"`` or ``"membranes"``: walls are thin, so nobody can see them
            at photon counts at which a nucleus still shows.
        """
        blur_xy = log_uniform(rng, 0.4, 1.6)
        fewest, most, brightest_background = (
            (4.0, 600.0, 0.45) if kind == "nuclei" else (12.0, 1000.0, 0.3)
        )
        photons = log_uniform(rng, fewest, most)
        eight_bit = bool(rng.uniform() < 0.4)
        gain = log_uniform(rng, 1.0, 25.0)

        def at_times(probability: float, low: float, high: float) -> float:
            value = rng.uniform(low, high)
            return float(value) if rng.uniform() < probability else 0.0

        return cls(
            blur_xy_voxels=blur_xy,
            # More would merge cells of the nominal size beyond what anybody can tell apart.
            blur_z_voxels=min(3.6, blur_xy * float(rng.uniform(1.0, 3.5))),
            tail_weight=float(rng.uniform(0.0, 0.45)),
            tail_scale=float(rng.uniform(3.0, 8.0)),
            depth_decay=at_times(0.6, 0.0, 0.7),
            depth_blur=at_times(0.5, 0.0, 1.0),
            depth_reversed=bool(rng.uniform() < 0.5),
            shading=float(rng.uniform(0.0, 0.2)),
            background=log_uniform(rng, 0.005, brightest_background),
            photons=photons,
            gain=gain,
            em_gain=bool(rng.uniform() < 0.25),
            read_noise=gain * math.sqrt(photons) * float(rng.uniform(0.0, 0.4)),
            offset=at_times(0.8, 20.0, 400.0),
            noise_blur_voxels=at_times(0.3, 0.3, 0.9),
            fixed_pattern=at_times(0.25, 0.01, 0.1),
            stripes=at_times(0.15, 0.01, 0.06),
            flicker=at_times(0.2, 0.01, 0.08),
            jitter_voxels=at_times(0.15, 0.1, 0.6),
            missing_slices=at_times(0.06, 0.01, 0.04),
            bits=8 if eight_bit else 16,
            saturation=at_times(0.6, 0.0, 0.3) if eight_bit else 0.0,
        )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of `low` and `high`."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))
