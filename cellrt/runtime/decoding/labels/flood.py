"""Seeds that grow over a map from its heights to its valleys: a watershed with markers.

Meyer, "Un algorithme optimal pour la ligne de partage des eaux", 1991. Of the voxels that touch a
labelled one the highest is labelled next, and of equal ones that which was touched first. Heights
are whole numbers of eight bits, so that a queue for each takes the place of a heap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import LabelArray

_LEVELS = 256


def flood(labels: LabelArray, heights: NDArray[np.uint8]) -> None:
    """Let labels grow, in place, over all voxels that a path along faces leads to.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Above 0 are seeds, all else is 0. Fewer than 2**31 voxels.
    heights : (z, y, x) uint8 array
        No label grows to where it is 0.
    """
    following = np.empty(labels.size, np.int32)
    first, last = np.full((2, _LEVELS), -1, np.int32)
    _flood(labels.reshape(-1), heights.reshape(-1), labels.shape, following, first, last)


@compiled
def _flood(labels: Any, heights: Any, shape: Any, following: Any, first: Any, last: Any) -> None:
    level = 0
    for at in range(labels.size):
        if labels[at] > 0:
            level = max(level, _touch(labels, heights, shape, following, first, last, at))
    while level > 0:
        at = first[level]
        if at < 0:
            level -= 1
            continue
        first[level] = following[at]
        labels[at] = -labels[at]
        level = max(level, _touch(labels, heights, shape, following, first, last, at))


@compiled
def _touch(
    labels: Any, heights: Any, shape: Any, following: Any, first: Any, last: Any, at: Any
) -> Any:
    """Queue what lies beside a voxel, with its label below 0, and say how high the highest is."""
    depth, height, width = shape
    z, y, x = at // (height * width), at // width % height, at % width
    highest = 0
    for side in range(6):
        near = -1
        if side == 0 and z > 0:
            near = at - height * width
        elif side == 1 and y > 0:
            near = at - width
        elif side == 2 and x > 0:
            near = at - 1
        elif side == 3 and x + 1 < width:
            near = at + 1
        elif side == 4 and y + 1 < height:
            near = at + width
        elif side == 5 and z + 1 < depth:
            near = at + height * width
        if near < 0 or labels[near] != 0 or heights[near] == 0:
            continue
        labels[near] = -labels[at]
        level = heights[near]
        following[near] = -1
        if first[level] < 0:
            first[level] = near
        else:
            following[last[level]] = near
        last[level] = near
        highest = max(highest, level)
    return highest
