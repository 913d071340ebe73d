"""Light on its way to the camera: point-spread function, illumination, moving slices."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.simulation.random_fields import smooth_noise


def blur(
    signal: NDArray[np.float32],
    sigma_voxels: tuple[float, float],
    tail: tuple[float, float],
    extra: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Convolve with a two-Gaussian point-spread function that may widen along z.

    Parameters
    ----------
    signal : ndarray of float32, (z, y, x)
    sigma_voxels : tuple of float
        Standard deviation along z, and along y and x.
    tail : tuple of float
        Weight of the wide Gaussian, and how many times wider it is.
    extra : ndarray of float, (z,)
        By how much the blur of each slice exceeds `sigma_voxels`, relative.
        Slices between the least and the most are mixed from both.

    Returns
    -------
    ndarray of float32, (z, y, x)
    """
    weight, scale = tail
    sigma = (sigma_voxels[0], sigma_voxels[1], sigma_voxels[1])
    light = gaussian(signal, sigma)
    most = float(extra.max(initial=0.0))
    if most > 0:
        more = math.sqrt((1 + most) ** 2 - 1)
        deep = gaussian(light, (sigma[0] * more, sigma[1] * more, sigma[2] * more))
        light += (extra / most).astype(np.float32)[:, None, None] * (deep - light)
    if weight > 0:
        wide = _wide_gaussian(signal, (sigma[0] * scale, sigma[1] * scale, sigma[2] * scale))
        light += np.float32(weight) * (wide - light)
    return light


def gaussian(volume: NDArray[np.float32], sigma: tuple[float, float, float]) -> NDArray[np.float32]:
    """Gaussian filter in single precision, faces continued with their own values."""
    return np.asarray(
        ndimage.gaussian_filter(volume, sigma, mode="nearest", truncate=3.0), dtype=np.float32
    )


def _wide_gaussian(
    volume: NDArray[np.float32], sigma: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Gaussian of many voxels, computed on every second to fourth voxel."""
    steps = [int(np.clip(s / 1.5, 1, 4)) for s in sigma]
    small = volume
    for axis, step in enumerate(steps):
        small = np.asarray(ndimage.uniform_filter1d(small, step, axis=axis, mode="nearest"))
        small = np.take(small, range(step // 2, small.shape[axis], step), axis=axis)
        if small.shape[axis] == 0:
            small = volume.mean(axis=axis, keepdims=True)
    small = gaussian(small, (sigma[0] / steps[0], sigma[1] / steps[1], sigma[2] / steps[2]))
    for axis, step in enumerate(steps):
        at = np.clip((np.arange(volume.shape[axis]) - step // 2) / step, 0, small.shape[axis] - 1)
        small = interpolate(small, at, axis)
    return small


def interpolate(
    volume: NDArray[np.float32], at: NDArray[np.float64], axis: int
) -> NDArray[np.float32]:
    """Linear interpolation along one axis at the positions `at` (in voxels)."""
    low = np.minimum(at.astype(np.intp), volume.shape[axis] - 1)
    high = np.minimum(low + 1, volume.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = len(at)
    weight = (at - low).astype(np.float32).reshape(shape)
    below: NDArray[np.float32] = np.take(volume, low, axis=axis)
    if not weight.any():
        return below
    return np.asarray(below + weight * (np.take(volume, high, axis=axis) - below))


def illumination(
    shape: tuple[int, int, int],
    decay: NDArray[np.float64],
    shading: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Relative brightness of every voxel, broadcastable to `shape`.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the stack.
    decay : ndarray, (z,)
        Brightness of every slice.
    shading : float
        Relative standard deviation over the field of view.
    rng : numpy.random.Generator
    """
    field = decay.astype(np.float32)[:, None, None]
    if shading <= 0:
        return np.asarray(field)
    scale = max(shape[1:]) * float(rng.uniform(0.4, 1.0))
    return np.asarray(
        field * np.exp(np.float32(shading) * smooth_noise((1, *shape[1:]), scale, rng))
    )


def disturb_slices(
    light: NDArray[np.float32],
    flicker: float,
    jitter: float,
    missing: float,
    rng: np.random.Generator,
) -> None:
    """Let slices flicker, shift sideways, repeat or go dark, in place.

    Parameters
    ----------
    light : ndarray of float32, (z, y, x)
    flicker : float
        Relative standard deviation of the slices' brightness.
    jitter : float
        Standard deviation of the shift along y and x in voxels.
    missing : float
        Probability that a slice repeats the one before or is nearly dark.
    rng : numpy.random.Generator
    """
    if flicker > 0:
        factors = np.clip(rng.normal(1, flicker, len(light)), 0.2, 2)
        light *= factors.astype(np.float32)[:, None, None]
    if jitter > 0:
        for plane, shift in zip(light, rng.normal(0, jitter, (len(light), 2)), strict=True):
            plane[:] = ndimage.shift(plane, shift, order=1, mode="nearest")
    if missing > 0:
        for z in np.flatnonzero(rng.uniform(size=len(light)) < missing):
            if rng.uniform() < 0.5 and z > 0:
                light[z] = light[z - 1]
            else:
                light[z] *= np.float32(rng.uniform(0.1, 0.5))
