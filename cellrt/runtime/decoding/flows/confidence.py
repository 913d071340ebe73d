"""What the network says about regions once they are found.

All passes are linear in voxels, whatever the number of regions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.runtime.decoding.flows.packed_field import PackedField
from cellrt.runtime.decoding.labels.regions import Labels
from cellrt.threads import in_threads


def foreground_voxels(
    labels: Labels, packed: PackedField, count: int, least: np.uint32
) -> npt.NDArray[np.int64]:
    """Voxels of each label 0..`count` with at least that probability byte."""
    return _sums(labels, packed, count, (np.arange(256) >= least).astype(np.int64))


def probability_sums(labels: Labels, packed: PackedField, count: int) -> npt.NDArray[np.int64]:
    """Probability of foreground, in units of 1/255, summed over each label; 0 for background."""
    sums = _sums(labels, packed, count, np.arange(256))
    sums[0] = 0
    return sums


def _sums(
    labels: Labels, packed: PackedField, count: int, values: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Sum over each label of what each byte of foreground counts."""
    flat, words = labels.reshape(-1), packed.reshape(-1)

    def part(lo: int, hi: int) -> npt.NDArray[np.int64]:
        sums = np.zeros(count + 1, np.int64)
        _add_values(flat, words, values, sums, lo, hi)
        return sums

    total: npt.NDArray[np.int64] = np.sum(in_threads(flat.size, part, voxels=flat.size), axis=0)
    return total


@compiled
def _add_values(labels: Any, packed: Any, values: Any, sums: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        sums[labels[i]] += values[packed[i] >> np.uint32(24)]


def mean_probability(
    sums: npt.NDArray[np.int64], volumes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Mean probability of foreground of each label, from the sums; 0 for absent labels."""
    mean: npt.NDArray[np.float64] = sums / (255.0 * np.maximum(volumes, 1))
    return mean
