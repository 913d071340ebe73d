"""Peaks of brightness that are specks of dirt: brighter than cells, and smaller than a block.

One saturated speck is a peak a hundred times as high as a cell's, and where there are several of
them no share of the highest peaks is large enough to leave them all out. But they are small: cells
are about four blocks wide, and walls go on along two axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# What is smaller than a block has, along every axis, on at least one side less than this share of
# its height.
WIDE_SHARE = 0.2
# Specks are so many times as high as `one_of_the_highest` other peaks. Where there are more than
# twice as many of them as of others they may be cells among haze, smaller than was thought, and
# stay.
SPECK_FACTOR = 3.0
MOST_SPECKS = 2
# Not the highest peak, as a few are dirt, but the last of the 8 % highest, of three of each of the
# two lattices at least.
HIGHEST_SHARE, HIGHEST_LEAST = 0.08, 6


def one_of_the_highest(ordered: NDArray[Any]) -> Any:
    """Height that few of some peaks, which are in ascending order, exceed."""
    return ordered[-min(len(ordered), max(HIGHEST_LEAST, int(HIGHEST_SHARE * len(ordered))))]


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
    dirt = ~wide & (heights > SPECK_FACTOR * one_of_the_highest(others))
    few = np.count_nonzero(dirt) <= MOST_SPECKS * len(others)
    return dirt if few else np.zeros_like(dirt)
