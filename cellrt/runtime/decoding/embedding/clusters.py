"""Clusters of an image: mean shift over fewer points than there are pixels.

What a network says of neighbouring pixels is nearly the same. One of four pixels stands for all,
paths begin once in a square for all that lies together in the space, and every pixel belongs to the
nearest centre in the end. A quarter of the points and of the paths find the same cells: on nuclei,
bacteria and worms their scores agree to 0.02 with those of all pixels, in either direction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.runtime.decoding.embedding.mean_shift import find_centres, nearest_centre

# Every second pixel along y and x is a point.
_STEP = 2
# Where a network saw no cells, what it says of all pixels is alike, or a haze, and paths are long.
_STEP_IN_HAZE = 8
# Pixels that look for their centre at a time.
_STRIP = 1 << 17
# Edge, in points, of the squares in which paths begin.
_EDGE = 8


def cluster_pixels(
    embedding: npt.NDArray[np.int16], inside: npt.NDArray[np.bool_], bandwidth: float
) -> npt.NDArray[np.int32]:
    """Cluster of each pixel of the foreground.

    Parameters
    ----------
    embedding : (y, x, d) int16 array
    inside : (y, x) bool array
        The foreground.
    bandwidth : float
        Radius of the kernel, as for `mean_shift`, in the embedding's steps.

    Returns
    -------
    (y, x) int32 array
        From 1; 0 outside of the foreground.
    """
    clusters = np.zeros(inside.shape, np.int32)
    if inside.any():
        for step in (_STEP, _STEP_IN_HAZE):
            some = (slice(None, None, step),) * 2
            if not inside[some].any():
                some = (slice(None),) * 2
            points = embedding[some].astype(np.float32)
            seeds = np.empty(inside[some].shape, np.bool_)
            _choose_seeds(points, inside[some], bandwidth, seeds)
            centres = find_centres(
                points[inside[some]], bandwidth, points[seeds], in_haze=step != _STEP
            )
            if centres is not None:
                break
        assert centres is not None
        # Strips: a tree of all pixels at once would be most of the memory of a run.
        height = max(1, _STRIP // inside.shape[1])
        for top in range(0, len(inside), height):
            rows, mask = slice(top, top + height), inside[top : top + height]
            if mask.any():
                pixels = embedding[rows][mask].astype(np.float32)
                clusters[rows][mask] = nearest_centre(pixels, centres, bandwidth) + 1
    return clusters


@compiled
def _choose_seeds(embedding: Any, inside: Any, bandwidth: Any, seeds: Any) -> None:
    """Mark points of each square until each is within the bandwidth of a marked one."""
    height, width, dimensions = embedding.shape
    square = bandwidth * bandwidth
    chosen = np.empty((_EDGE * _EDGE, 2), np.int64)
    for top in range(0, height, _EDGE):
        for left in range(0, width, _EDGE):
            count = 0
            for y in range(top, min(top + _EDGE, height)):
                for x in range(left, min(left + _EDGE, width)):
                    seeds[y, x] = inside[y, x]
                    if not inside[y, x]:
                        continue
                    for n in range(count):
                        apart = 0.0
                        for k in range(dimensions):
                            step = embedding[y, x, k] - embedding[chosen[n, 0], chosen[n, 1], k]
                            apart += step * step
                        if apart <= square:
                            seeds[y, x] = False
                            break
                    if seeds[y, x]:
                        chosen[count, 0], chosen[count, 1] = y, x
                        count += 1
