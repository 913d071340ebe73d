"""Tissue cut from a real label volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.tessellation import smooth_warp


def cut_from_labels(
    source: NDArray[Any],
    shape: tuple[int, int, int],
    diameter: float,
    source_anisotropy: float,
    curvature: float,
    curvature_scale: float,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Cut a random box from a label volume, resampled to the wanted cell size.

    Parameters
    ----------
    source : ndarray of integers, (z, y, x)
        0 is background.
    shape : tuple of int
        Shape of the result. Where the source is too small it is continued by its mirror image.
    diameter : float
        Wanted diameter of the sphere of the median cell's volume, in voxels of the result.
    source_anisotropy : float
        Voxel size of `source` along z over that along y and x.
    curvature, curvature_scale : float
        Standard deviation and length of the warp that curves walls, in diameters.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int32, (z, y, x)
        Labels 1..n, each one connected component.

    Raises
    ------
    InputError
        When `source` is not three-dimensional, not integer, negative or empty.
    """
    if source.ndim != 3 or source.dtype.kind not in "iub":
        raise InputError(
            f"the label volume has {source.ndim} dimensions of {source.dtype}; "
            "whole numbers in three dimensions (z, y, x) are needed"
        )
    if source.size == 0 or source.min() < 0 or source.max() == 0:
        raise InputError("the label volume has no cells or negative labels; 0 is background")
    volume = _median_volume(source) * source_anisotropy
    zoom = (6 / math.pi * volume) ** (1 / 3) / diameter
    warp = smooth_warp(shape, curvature * diameter, curvature_scale * diameter, rng)
    # Turning by 90 degrees in the plane is safe; along z the tissue may have a top.
    turned = source.transpose(0, 2, 1) if rng.uniform() < 0.5 else source
    index = []
    for axis, (n, available) in enumerate(zip(shape, turned.shape, strict=True)):
        step = zoom / source_anisotropy if axis == 0 else zoom
        start = rng.uniform(0, max(0.0, available - 1 - (n - 1) * step))
        line = np.arange(n, dtype=np.float32) * np.float32(step) + np.float32(start)
        if rng.uniform() < 0.5:
            line = line[::-1]
        line = line.reshape([-1 if k == axis else 1 for k in range(3)])
        at = np.rint(line + warp[axis] * np.float32(step)).astype(np.int32)
        index.append(_mirror(at, available))
    cut = turned[tuple(index)]
    renumber = np.zeros(int(source.max()) + 1, dtype=np.int32)
    present = np.flatnonzero(np.bincount(cut.ravel(), minlength=len(renumber)))
    present = present[present > 0]
    renumber[present] = np.arange(1, len(present) + 1)
    return keep_largest_components(renumber[cut], min_voxels=int(0.02 * diameter**3), fill=True)


def _median_volume(labels: NDArray[Any]) -> float:
    """Median cell volume in voxels, of whole cells where there are some."""
    # Every second voxel measures a cell well enough, and large volumes are drawn from many times.
    step = 2 if labels.size > 4_000_000 else 1
    labels = np.ascontiguousarray(labels[::step, ::step, ::step])
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():
        return float(step**3)
    whole = sizes.copy()
    for axis in range(3):
        whole[np.take(labels, (0, -1), axis=axis).ravel()] = 0
    few = 5
    chosen = whole if np.count_nonzero(whole) >= few else sizes
    return float(np.median(chosen[chosen > 0])) * step**3


def _mirror(index: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """Fold any whole number into 0..n-1 by reflection at the ends."""
    if n == 1:
        return index * 0
    folded = np.mod(index, 2 * (n - 1))
    return np.asarray(np.minimum(folded, 2 * (n - 1) - folded))
