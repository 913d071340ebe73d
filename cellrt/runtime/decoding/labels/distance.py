"""Exact squared Euclidean distance to the nearest voxel that is not foreground, in place.

Libraries have it: scipy's takes eight times the CPU time, that of edt about as much but is one more
compiled dependency, and both put their result beside the labels in memory (docs/tascan.md). Here
lines of one axis after the other are replaced by the lower envelope of the parabolas over their
voxels, which costs the same per voxel however far the next border is.

References
----------
Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", Theory of Computing 8,
2012 (lower envelope of parabolas).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.geometry import axis_lines
from cellrt.runtime.decoding.classes.class_map import FOREGROUND, ClassMap
from cellrt.threads import in_threads

FARTHEST = (1 << 24) - 1
"""Largest squared distance; also that of a volume that is foreground all over."""

_COLUMNS = 16  # int32 columns of one cache line, gathered together


def squared_distance(classes: ClassMap) -> npt.NDArray[np.int32]:
    """Squared distance, in voxels, from each foreground voxel to the nearest other voxel.

    Parameters
    ----------
    classes : (z, y, x) uint8 array
        Class map. The volume's faces are no border: what lies behind them is unknown.

    Returns
    -------
    (z, y, x) int32 array
        0 outside of the foreground, at most `FARTHEST`.
    """
    squares = np.empty(classes.shape, np.int32)
    in_threads(classes.shape[0], partial(_along_x, classes, squares), voxels=classes.size)
    for outer, *lines in axis_lines(classes.shape)[1::-1]:
        envelopes = partial(_envelopes, squares.reshape(-1), *lines)
        in_threads(outer, envelopes, voxels=4 * classes.size)
    return squares


@compiled
def _along_x(classes: Any, squares: Any, lo: int, hi: int) -> None:
    _, ny, nx = classes.shape
    for z in range(lo, hi):
        for y in range(ny):
            apart = np.int64(FARTHEST)
            for x in range(nx):
                apart = 0 if classes[z, y, x] != FOREGROUND else apart + 1
                squares[z, y, x] = min(apart, FARTHEST)
            apart = np.int64(FARTHEST)
            for x in range(nx - 1, -1, -1):
                apart = min(np.int64(squares[z, y, x]), apart + 1)
                squares[z, y, x] = min(apart * apart, FARTHEST)


@compiled
def _envelopes(
    squares: Any,
    outer_stride: int,
    n: int,
    stride: int,
    inner_count: int,
    inner_stride: int,
    lo: int,
    hi: int,
) -> None:
    """Replace all lines of one axis by their envelopes."""
    lines = np.empty((_COLUMNS, n), np.int32)
    peak = np.empty(n, np.int64)
    begin = np.empty(n, np.int64)
    for outer in range(lo, hi):
        for first in range(0, inner_count, _COLUMNS):
            corner = outer * outer_stride + first * inner_stride
            width = min(_COLUMNS, inner_count - first)
            for i in range(n):
                for k in range(width):
                    lines[k, i] = squares[corner + i * stride + k * inner_stride]
            for k in range(width):
                line = lines[k]
                out = squares[corner + k * inner_stride :: stride]
                start = np.int64(0)
                while start < n:
                    if line[start] == 0:
                        start += 1
                        continue
                    stop = start
                    while stop < n and line[stop] != 0:
                        stop += 1
                    # No parabola beyond the zeros at both ends can reach between them.
                    _envelope(
                        line,
                        out,
                        peak,
                        begin,
                        max(start - 1, 0),
                        start,
                        stop,
                        min(stop + 1, n),
                    )
                    start = stop


@compiled
def _envelope(
    line: Any, out: Any, peak: Any, begin: Any, lowest: int, start: int, stop: int, highest: int
) -> None:
    """Lowest of the parabolas over lowest to highest-1, at start to stop-1."""
    top = -1
    for u in range(lowest, highest):
        height = np.int64(line[u])
        if height >= FARTHEST:
            continue
        left = np.int64(lowest)
        while top >= 0:
            i = peak[top]
            # The first place at which the parabola of u is not above that of i.
            width = 2 * (u - i)
            left = (u * u - i * i + height - line[i] + width - 1) // width
            if left > begin[top]:
                break
            top -= 1
        if top < 0:
            left = np.int64(lowest)
        if left < stop:
            top += 1
            peak[top] = u
            begin[top] = left
    if top < 0:
        return  # all are FARTHEST, and stay so
    at = 0
    for q in range(start, stop):
        while at < top and begin[at + 1] <= q:
            at += 1
        apart = q - peak[at]
        out[q] = min(line[peak[at]] + apart * apart, FARTHEST)
