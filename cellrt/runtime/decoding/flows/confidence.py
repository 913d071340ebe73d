"""What the network says about regions once they are found.

All passes are linear in voxels, whatever the number of regions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.decoding.flows.packed_field import PackedField
from cellrt.runtime.decoding.labels.regions import Labels
from cellrt.threads import in_threads


def foreground_voxels(
    labels: Labels, packed: PackedField, count: int, least: np.uint32
) -> npt.NDArray[np.int64]:
    """Voxels of each label 0..`count` that the network calls foreground; 0 for background."""
    flat = labels.reshape(-1)
    work = partial(_foreground_voxels, flat, packed.reshape(-1), count, least)
    voxels: npt.NDArray[np.int64] = np.sum(in_threads(flat.size, work, voxels=flat.size), axis=0)
    return voxels


@njit(cache=True, nogil=True)
def _foreground_voxels(labels: Any, packed: Any, count: int, least: Any, lo: int, hi: int) -> Any:
    counts = np.zeros(count + 1, np.int64)
    for i in range(lo, hi):
        counts[labels[i]] += (packed[i] >> np.uint32(24)) >= least
    counts[0] = 0
    return counts


def probability_sums(labels: Labels, packed: PackedField, count: int) -> npt.NDArray[np.int64]:
    """Probability of foreground, in units of 1/255, summed over each label; 0 for background."""
    flat = labels.reshape(-1)
    work = partial(_probability_sums, flat, packed.reshape(-1), count)
    sums: npt.NDArray[np.int64] = np.sum(in_threads(flat.size, work, voxels=flat.size), axis=0)
    return sums


@njit(cache=True, nogil=True)
def _probability_sums(labels: Any, packed: Any, count: int, lo: int, hi: int) -> Any:
    sums = np.zeros(count + 1, np.int64)
    for i in range(lo, hi):
        sums[labels[i]] += packed[i] >> np.uint32(24)
    sums[0] = 0
    return sums


def mean_probability(
    sums: npt.NDArray[np.int64], volumes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Mean probability of foreground of each label, from the sums; 0 for absent labels."""
    mean: npt.NDArray[np.float64] = sums / (255.0 * np.maximum(volumes, 1))
    return mean
