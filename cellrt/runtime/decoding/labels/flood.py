"""Seeds that grow over a map from its heights to its valleys: a watershed with markers.

Meyer, "Un algorithme optimal pour la ligne de partage des eaux", 1991. Of the voxels that touch a
labelled one the highest is labelled next, and of equal ones that which was touched first. Heights
are whole numbers of eight bits, so that a queue for each takes the place of a heap: how long each
becomes is counted before.

Time is that of memory. Voxels of one height lie all over the volume, so that nearly every one is
fetched with its neighbours from where no cache has them: those of the queue are asked for some
voxels ahead, and neighbours tell by a byte, their height, whether they are still to be labelled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import LabelArray
from cellrt.runtime.decoding.labels.prefetch import prefetch
from cellrt.threads import in_threads

# The queue of seeds, which are above all heights.
_SEEDS = 256
# Voxels between the one that is asked for and the one that grows.
_AHEAD = 16


def flood(labels: LabelArray, heights: NDArray[np.uint8], least: NDArray[np.float32]) -> None:
    """Let labels grow, in place, over all voxels that a path along faces leads to.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Above 0 are seeds, all else is 0. Fewer than 2**31 voxels.
    heights : (z, y, x) uint8 array
        No label grows to where it is 0. Used up: what is labelled becomes 0.
    least : (n + 1,) float32 array
        Of labels 0 to n: what is lower loses its label in the end, seeds as well.
    """
    names, levels = labels.reshape(-1), heights.reshape(-1)

    def part(lo: int, hi: int) -> NDArray[np.int64]:
        found = np.zeros(_SEEDS + 1, np.int64)
        _count(names, levels, found, lo, hi)
        return found

    counts = np.sum(in_threads(names.size, part, voxels=names.size), axis=0)
    counts[0] = 0
    first = np.cumsum(counts) - counts
    last = first.copy()
    queue = np.empty(int(counts.sum()), np.int32)
    _queue_seeds(names, levels, least, queue, last)
    _flood(names, levels, least, labels.shape, queue, first, last)


@compiled
def _count(labels: Any, heights: Any, found: Any, lo: int, hi: int) -> None:
    for at in range(lo, hi):
        found[_SEEDS if labels[at] > 0 else np.int64(heights[at])] += 1


@compiled
def _queue_seeds(labels: Any, heights: Any, least: Any, queue: Any, last: Any) -> None:
    for at in range(labels.size):
        label = labels[at]
        if label > 0:
            queue[last[_SEEDS]] = at
            last[_SEEDS] += 1
            # It is labelled when it has grown.
            if heights[at] < least[label]:
                labels[at] = -label
            heights[at] = 0


# No function is called with arrays: that they are used is counted with a lock, which takes longer
# than all else.
@compiled
def _flood(
    labels: Any, heights: Any, least: Any, shape: Any, queue: Any, first: Any, last: Any
) -> None:
    height, width = shape[1], shape[2]
    plane = height * width
    rows, columns = np.uint32(height), np.uint32(width)
    level = np.int64(_SEEDS)
    while level > 0:
        turn = first[level]
        if turn == last[level]:
            level -= 1
            continue
        first[level] = turn + 1
        if turn + _AHEAD < last[level]:
            ahead = np.int64(queue[turn + _AHEAD])
            prefetch(labels, ahead)
            prefetch(heights, ahead)
            prefetch(heights, ahead - plane)
            prefetch(heights, ahead - width)
            prefetch(heights, ahead + width)
            prefetch(heights, ahead + plane)
        at = np.int64(queue[turn])
        label = labels[at]
        if label < 0:
            label = -label
            labels[at] = 0
        row = np.uint32(at) // columns
        x, y = np.int64(np.uint32(at) - row * columns), np.int64(row % rows)
        for side in range(6):
            if side == 0:
                near, there = at - plane, at >= plane
            elif side == 1:
                near, there = at - width, y > 0
            elif side == 2:
                near, there = at - 1, x > 0
            elif side == 3:
                near, there = at + 1, x + 1 < width
            elif side == 4:
                near, there = at + width, y + 1 < height
            else:
                near, there = at + plane, at + plane < labels.size
            if not there or heights[near] == 0:
                continue
            high = np.int64(heights[near])
            heights[near] = 0
            labels[near] = label if high >= least[label] else -label
            queue[last[high]] = near
            last[high] += 1
            level = max(level, high)
