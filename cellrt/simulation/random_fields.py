"""Smooth random fields, the raw material of texture, haze and uneven staining."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled


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
    axes = [_spline(n, max(float(scale), 1.0), rng) for n, scale in zip(shape, scales, strict=True)]
    nodes = [int(first[-1]) + 4 for first, _ in axes]
    field = rng.standard_normal(nodes, dtype=np.float32)
    for axis, (first, weights) in enumerate(axes):
        outer = math.prod(field.shape[:axis])
        inner = math.prod(field.shape[axis + 1 :])
        done = _interpolate_axis(field.reshape(outer, nodes[axis], inner), first, weights)
        field = done.reshape(*shape[: axis + 1], *nodes[axis + 1 :])
    return field


def _spline(
    n: int, scale: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First node (n,) and the four cubic B-spline weights (n, 4) of every voxel of an axis."""
    position = np.arange(n) / scale + rng.uniform()
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3], axis=1
    )
    # Interpolation averages noise; this keeps its variance at 1 everywhere.
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return first, weights.astype(np.float32)


@compiled
def _interpolate_axis(
    field: NDArray[np.float32], first: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    outer, _, inner = field.shape
    out = np.zeros((outer, len(first), inner), np.float32)
    for o in range(outer):
        for j in range(len(first)):
            for k in range(4):
                weight = weights[j, k]
                node = first[j] + k
                for i in range(inner):
                    out[o, j, i] += weight * field[o, node, i]
    return out
