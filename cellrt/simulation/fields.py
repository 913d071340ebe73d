"""Smooth random fields, the raw material of texture, haze and uneven staining."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def smooth_noise(
    shape: tuple[int, int, int],
    scale_voxels: float | Sequence[float],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Gaussian random field with one correlation length per axis.

    Independent normal numbers on a coarse grid are interpolated with cubic
    B-splines, axis by axis. That costs a few small matrix products, much less
    than blurring white noise when the scale is large.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the result.
    scale_voxels : float or three floats
        Distance between the nodes of the coarse grid in voxels, per axis; the
        correlation falls to about one half at this distance.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, (z, y, x)
        Mean 0 and standard deviation 1 in expectation.
    """
    scales = [scale_voxels] * 3 if isinstance(scale_voxels, int | float) else list(scale_voxels)
    matrices = [
        _interpolation_matrix(n, max(float(s), 1.0), rng)
        for n, s in zip(shape, scales, strict=True)
    ]
    field = rng.standard_normal([m.shape[1] for m in matrices], dtype=np.float32)
    for axis in (2, 1, 0):
        field = np.moveaxis(np.tensordot(matrices[axis], field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def _interpolation_matrix(n: int, scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Cubic B-spline weights (n, nodes), scaled to keep the mean variance at 1."""
    position = np.arange(n) / scale + rng.uniform()
    nodes = math.floor(position[-1]) + 4
    distance = np.abs(position[:, None] + 1.0 - np.arange(nodes)[None, :])
    weights = np.where(
        distance < 1,
        2 / 3 - distance**2 + distance**3 / 2,
        np.clip(2 - distance, 0, None) ** 3 / 6,
    )
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights.astype(np.float32)
