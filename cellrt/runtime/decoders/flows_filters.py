"""What the network says about regions once they are found.

All passes are linear in voxels, whatever the number of regions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.decoders.flows_trace import PackedField
from cellrt.runtime.decoders.regions import Labels
from cellrt.runtime.threads import in_threads


def foreground_share(
    labels: Labels, packed: PackedField, count: int, least: np.uint32
) -> npt.NDArray[np.float64]:
    """Share of each label's voxels that the network calls foreground; 1 for absent labels."""
    flat = labels.reshape(-1)
    work = partial(_foreground_counts, flat, packed.reshape(-1), count, least)
    both = np.sum(in_threads(flat.size, work, voxels=flat.size), axis=0)
    share: npt.NDArray[np.float64] = np.where(both[0] > 0, both[1] / np.maximum(both[0], 1), 1.0)
    return share


@njit(cache=True, nogil=True)
def _foreground_counts(labels: Any, packed: Any, count: int, least: Any, lo: int, hi: int) -> Any:
    counts = np.zeros((2, count + 1), np.int64)
    for i in range(lo, hi):
        label = labels[i]
        counts[0, label] += 1
        counts[1, label] += (packed[i] >> np.uint32(24)) >= least
    return counts


def mean_probability(
    labels: Labels, packed: PackedField, volumes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Mean probability of foreground over each label's voxels; 0 for absent labels."""
    flat = labels.reshape(-1)
    work = partial(_probability_sums, flat, packed.reshape(-1), volumes.size)
    sums = np.sum(in_threads(flat.size, work, voxels=flat.size), axis=0)
    mean: npt.NDArray[np.float64] = sums / (255.0 * np.maximum(volumes, 1))
    return mean


@njit(cache=True, nogil=True)
def _probability_sums(labels: Any, packed: Any, size: int, lo: int, hi: int) -> Any:
    sums = np.zeros(size, np.int64)
    for i in range(lo, hi):
        sums[labels[i]] += packed[i] >> np.uint32(24)
    return sums
