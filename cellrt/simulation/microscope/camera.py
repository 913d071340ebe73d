"""The camera: photons become electrons, electrons become numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation.microscope.optics import gaussian
from cellrt.simulation.parameters.imaging import ImagingParameters


def detect(
    light: NDArray[np.float32], imaging: ImagingParameters, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Grey values above the offset: shot noise, gain, read noise.

    Parameters
    ----------
    light : ndarray of float32, (z, y, x)
        Relative light, 1 is the structure.
    imaging : ImagingParameters
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, (z, y, x)
    """
    if imaging.photons <= 0:
        grey = light * np.float32(imaging.gain)
    else:
        electrons = rng.poisson(np.maximum(light, 0) * np.float32(imaging.photons))
        if imaging.em_gain:
            # k photons, each amplified by an exponential factor, add up to a gamma distribution.
            grey = rng.standard_gamma(electrons.astype(np.float32), dtype=np.float32)
        else:
            grey = electrons.astype(np.float32)
        grey *= np.float32(imaging.gain)
    _, height, width = light.shape
    if imaging.fixed_pattern > 0:
        grey *= _gains(imaging.fixed_pattern, (height, width), rng)
    if imaging.stripes > 0:
        along_y = rng.uniform() < 0.5
        grey *= _gains(imaging.stripes, (height, 1) if along_y else (1, width), rng)
    if imaging.read_noise > 0:
        grey += np.float32(imaging.read_noise) * rng.standard_normal(grey.shape, dtype=np.float32)
    if imaging.noise_blur_voxels > 0:
        sigma = imaging.noise_blur_voxels
        grey = gaussian(grey, (0.5 * sigma, sigma, sigma))
    return np.asarray(grey)


def digitise(
    grey: NDArray[np.float32], light: NDArray[np.float32], imaging: ImagingParameters
) -> NDArray[np.uint16]:
    """Add the offset and round; stretch to 0..255 when the camera's file has 8 bits.

    Parameters
    ----------
    grey : ndarray of float32
        From :func:`detect`.
    light : ndarray of float32
        The relative light: tells which voxels belong to the structure.
    imaging : ImagingParameters

    Returns
    -------
    ndarray of uint16
    """
    if imaging.bits != 8:
        grey = grey + np.float32(imaging.offset)
        return np.clip(np.rint(grey), 0, 65535).astype(np.uint16)
    low = float(np.percentile(grey[::2, ::2, ::2], 0.5))
    bright = grey[light > 0.7]
    if bright.size == 0:
        bright = grey.ravel()
    high = float(np.quantile(bright, 1 - imaging.saturation))
    grey = (grey - np.float32(low)) * np.float32(245.0 / max(high - low, 1e-6)) + np.float32(3)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint16)


def _gains(spread: float, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    gains = 1 + np.float32(spread) * rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.clip(gains, 0.2, 2.0))
