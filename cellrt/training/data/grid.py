"""Bring a stack to a model's grid: isotropic, cells about as large as the model expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.geometry import Shape
from cellrt.runtime.grid.resample import resample

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int32]


def median_diameter_um(labels: npt.NDArray[Any], voxel_size_um: Sequence[float]) -> float:
    """Return the diameter in µm of the sphere that has the median cell's volume.

    Cells that touch the stack's faces are left out while at least three others remain.

    Parameters
    ----------
    labels : (z, y, x) integer array
        0 and below is background.
    voxel_size_um : sequence of 3 float
        Voxel size (z, y, x) in µm.

    Returns
    -------
    float
        0.0 when there is no cell.
    """
    positive = np.where(labels > 0, labels, 0).astype(np.int64)
    volumes = np.bincount(positive.ravel())
    volumes[:1] = 0
    axes = range(3) if len(labels) > 1 else (1, 2)
    faces = [positive.take(end, axis).ravel() for axis in axes for end in (0, -1)]
    inner = volumes.copy()
    inner[np.unique(np.concatenate(faces))] = 0
    chosen = inner if np.count_nonzero(inner) >= 3 else volumes
    if not chosen.any():
        return 0.0
    if len(labels) == 1:  # of single slices the area is all there is to see
        area_um2 = float(np.median(chosen[chosen > 0])) * float(np.prod(voxel_size_um[1:]))
        return float((4.0 * area_um2 / np.pi) ** 0.5)
    volume_um3 = float(np.median(chosen[chosen > 0])) * float(np.prod(voxel_size_um))
    return float((6.0 * volume_um3 / np.pi) ** (1.0 / 3.0))


def zoom_image(image: npt.NDArray[Any], zoom: Sequence[float]) -> FloatArray:
    """Resample by a factor per axis, exactly as the runtime brings an image to the model's grid."""
    return resample(image, zoomed_shape(image.shape, zoom))


def zoom_labels(labels: npt.NDArray[Any], zoom: Sequence[float]) -> LabelArray:
    """Resample by a factor per axis with nearest neighbour, on the same grid as `zoom_image`."""
    # Voxel centres, not corners, keep their place: x_in = (x_out + 0.5) * step - 0.5.
    nearest = [
        np.floor((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for old, new in zip(labels.shape, zoomed_shape(labels.shape, zoom), strict=True)
    ]
    return np.asarray(labels[np.ix_(*nearest)], np.int32)


def zoomed_shape(shape: Sequence[int], zoom: Sequence[float]) -> Shape:
    """Return the shape after resampling; no axis falls below 1."""
    z, y, x = (max(1, round(size * factor)) for size, factor in zip(shape, zoom, strict=True))
    return z, y, x
