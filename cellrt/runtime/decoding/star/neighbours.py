"""Shapes near another one, found through a grid: time grows with their number, not its square."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled


class Grid(NamedTuple):
    """Points, sorted into boxes.

    Attributes
    ----------
    edge : float
        Of a box.
    corner : (3,) float64 array
        Where the first box begins.
    shape : (3,) int64 array
        Boxes along each axis.
    starts : ndarray of int64
        Where the points of each box begin, and where those of the last one end.
    order : ndarray of int64
        Indices of the points, box by box, and in each box as they came.
    """

    edge: float
    corner: NDArray[np.float64]
    shape: NDArray[np.int64]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]


def sort_into_grid(points: NDArray[np.float64], edge: float) -> Grid:
    """Sort points (n, 3), of which there is one at least, into boxes."""
    corner = points.min(axis=0)
    box = ((points - corner) / edge).astype(np.int64)
    shape = box.max(axis=0) + 1
    flat = (box[:, 0] * shape[1] + box[:, 1]) * shape[2] + box[:, 2]
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(int(np.prod(shape)) + 1))
    return Grid(edge, corner, shape, starts.astype(np.int64), order.astype(np.int64))


@compiled
def later_neighbours(grid: Any, i: int, point: Any, reach: Any, found: Any) -> int:
    """Find points after point `i` that may be within reach of it.

    Parameters
    ----------
    grid : Grid
    i : int
    point : (3,) array
        Where point `i` is.
    reach : float
    found : (n,) int64 array
        The first of them become indices of points.

    Returns
    -------
    int
        How many were found.
    """
    box = np.empty((3, 2), np.int64)
    for axis in range(3):
        low = math.floor((point[axis] - reach - grid.corner[axis]) / grid.edge)
        high = math.floor((point[axis] + reach - grid.corner[axis]) / grid.edge) + 1
        box[axis, 0] = min(max(low, 0), grid.shape[axis])
        box[axis, 1] = min(max(high, 0), grid.shape[axis])
    count = 0
    for z in range(box[0, 0], box[0, 1]):
        for y in range(box[1, 0], box[1, 1]):
            row = (z * grid.shape[1] + y) * grid.shape[2]
            # Boxes of a row lie one behind the other.
            for k in range(grid.starts[row + box[2, 0]], grid.starts[row + box[2, 1]]):
                if grid.order[k] > i:
                    found[count] = grid.order[k]
                    count += 1
    return count


@compiled
def common_box(a: Any, b: Any, part: Any) -> int:
    """Write what two boxes (z, z, y, y, x, x) share into `part` (3, 2); returns its size."""
    size = 1
    for axis in range(3):
        low = max(a[2 * axis], b[2 * axis])
        high = min(a[2 * axis + 1], b[2 * axis + 1])
        part[axis, 0], part[axis, 1] = low, high
        size *= max(high - low, 0)
    return size
