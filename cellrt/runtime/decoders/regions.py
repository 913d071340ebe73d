"""Regions of a label image: measured, filtered and numbered, whatever found them.

All passes are linear in voxels, whatever the number of regions, and change labels in place.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.threads import in_threads

Labels = npt.NDArray[np.int32]


def region_volumes(labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """Voxels of each label 0..`count`; that of the background is given as 0."""
    flat = labels.reshape(-1)
    parts = in_threads(flat.size, partial(_volumes, flat, count), voxels=flat.size)
    total: npt.NDArray[np.int64] = np.sum(parts, axis=0)
    total[0] = 0
    return total


@njit(cache=True, nogil=True)
def _volumes(labels: Any, count: int, lo: int, hi: int) -> Any:
    volumes = np.zeros(count + 1, np.int64)
    for i in range(lo, hi):
        volumes[labels[i]] += 1
    return volumes


def equivalent_radius(
    volumes: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Radius in voxels of the ball of the same volume.

    In a stack of one slice it is the disc of the same area, in a single line half the length.
    """
    extended = sum(n > 1 for n in shape)
    if extended == 3:
        cube: npt.NDArray[np.float64] = np.cbrt(volumes * (3.0 / (4.0 * np.pi)))
        return cube
    radius: npt.NDArray[np.float64] = np.sqrt(volumes / np.pi) if extended == 2 else volumes / 2.0
    return radius


def smallest_volume(radius: float, shape: tuple[int, ...]) -> float:
    """Voxels of a region with the equivalent radius `radius`: the inverse of the above."""
    extended = sum(n > 1 for n in shape)
    if extended == 3:
        return float(4.0 / 3.0 * np.pi * radius**3)
    return float(np.pi * radius**2) if extended == 2 else 2.0 * radius


def relabel(labels: Labels, table: npt.NDArray[np.int32]) -> None:
    """Replace each label by ``table[label]``, in place."""
    flat = labels.reshape(-1)
    in_threads(flat.size, partial(_relabel, flat, table), voxels=flat.size)


@njit(cache=True, nogil=True)
def _relabel(labels: Any, table: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        labels[i] = table[labels[i]]


def keep_and_number(labels: Labels, keep: npt.NDArray[np.bool_]) -> int:
    """Drop the labels with a false `keep` and number the rest from 1, by first voxel, in place.

    Returns
    -------
    int
        Number of labels kept.
    """
    table = np.zeros(keep.size, np.int32)
    count = int(_order(labels.reshape(-1), keep, table))
    relabel(labels, table)
    return count


@njit(cache=True, nogil=True)
def _order(labels: Any, keep: Any, table: Any) -> int:
    count = 0
    for i in range(labels.size):
        label = labels[i]
        if label != 0 and table[label] == 0 and keep[label]:
            count += 1
            table[label] = count
    return count
