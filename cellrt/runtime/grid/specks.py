"""Peaks of brightness that are specks of dirt: brighter than cells, and smaller than a block.

One saturated speck is a peak a hundred times as high as a cell's, and where there are several of
them no share of the highest peaks is large enough to leave them all out. But they are small: cells
are about four blocks wide, and walls go on along two axes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# What is smaller than a block has, along every axis, on at least one side less than this share of
# its height.
WIDE_SHARE = 0.2
# Specks are so many times as high as the highest other peaks: the highest 8 %, but at least three
# of each lattice. Where there are more than twice as many of them as of others they may be cells
# among haze, smaller than was thought, and stay.
SPECK_FACTOR = 3.0
HIGHEST_SHARE, FEWEST = 0.08, 6
MOST_SPECKS = 2


def are_wide(above: FloatArray, where: NDArray[np.int64], heights: FloatArray) -> NDArray[np.bool_]:
    """Whether blocks on both sides of a peak, along any axis, belong to what is bright there."""
    wide = np.zeros(len(where), np.bool_)
    for axis, length in enumerate(above.shape):
        lower = np.full(len(where), np.inf, np.float32)
        for step in (-1, 1):
            beside = where.copy()
            # At a face of the image what is bright may go on.
            beside[:, axis] = np.clip(where[:, axis] + step, 0, length - 1)
            lower = np.fmin(lower, above[tuple(beside.T)])
        if length > 1:
            wide |= lower >= WIDE_SHARE * heights
    return wide


def specks(heights: FloatArray, wide: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which peaks are specks, brighter than anything as large as a cell."""
    others = np.sort(heights[wide])
    if not len(others):
        return np.zeros(len(heights), np.bool_)
    highest = min(len(others), max(FEWEST, int(HIGHEST_SHARE * len(others))))
    dirt = ~wide & (heights > SPECK_FACTOR * others[-highest])
    few = np.count_nonzero(dirt) <= MOST_SPECKS * len(others)
    return dirt if few else np.zeros_like(dirt)
