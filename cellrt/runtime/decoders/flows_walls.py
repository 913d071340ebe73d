"""Voxels between cells that belong to none, given to the nearest cell.

A membrane model calls the walls background, biologists expect neighbours to touch. The search goes
outwards through the offsets of a ball, in order of distance, so that it ends at the first cell;
voxels in bricks without a cell nearby are skipped altogether.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.threads import in_threads

_BRICK = 8  # voxels along an edge


def fill_walls(labels: npt.NDArray[np.int32], thickness: float) -> None:
    """Give each background voxel within `thickness` of a cell to the nearest cell, in place.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Cells, changed in place.
    thickness : float
        Largest Euclidean distance between voxel centres; nothing happens at 0. Among equally near
        cells the one with most voxels at that distance wins, then the lower label.
    """
    if thickness <= 0 or not labels.size:
        return
    offsets, shells = _ball_shells(thickness)
    near = _bricks_near_cells(labels, int(np.ceil(thickness / _BRICK)))
    in_threads(
        labels.shape[0], partial(_fill, labels, offsets, shells, near), voxels=8 * labels.size
    )
    flat = labels.reshape(-1)
    in_threads(flat.size, partial(_settle, flat), voxels=flat.size)


def _ball_shells(radius: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets within `radius`, nearest first, and where each distance's offsets end."""
    reach = np.arange(-int(radius), int(radius) + 1)
    offsets = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    squares = (offsets * offsets).sum(axis=1)
    inside = (squares > 0) & (squares <= radius * radius)
    offsets, squares = offsets[inside], squares[inside]
    order = np.argsort(squares, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(squares[order])) + 1, order.size)
    return offsets[order], ends


def _bricks_near_cells(labels: npt.NDArray[np.int32], reach: int) -> npt.NDArray[np.bool_]:
    """Bricks that have a cell within `reach` bricks of them."""
    occupied = np.zeros([-(-n // _BRICK) for n in labels.shape], np.bool_)
    _occupy(labels, occupied)
    for axis in range(3):
        spread = occupied.copy()
        for shift in range(1, reach + 1):
            to = [slice(None)] * 3
            back = [slice(None)] * 3
            to[axis], back[axis] = slice(shift, None), slice(None, -shift)
            spread[tuple(to)] |= occupied[tuple(back)]
            spread[tuple(back)] |= occupied[tuple(to)]
        occupied = spread
    return occupied


@njit(cache=True, nogil=True)
def _occupy(labels: Any, occupied: Any) -> None:
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] > 0:
                    occupied[z // _BRICK, y // _BRICK, x // _BRICK] = True


@njit(cache=True, nogil=True)
def _fill(labels: Any, offsets: Any, shells: Any, near: Any, lo: int, hi: int) -> None:
    nz, ny, nx = labels.shape
    found = np.empty(offsets.shape[0], np.int32)
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] > 0 or not near[z // _BRICK, y // _BRICK, x // _BRICK]:
                    continue
                begin = 0
                for end in shells:
                    count = 0
                    for k in range(begin, end):
                        a = z + offsets[k, 0]
                        b = y + offsets[k, 1]
                        c = x + offsets[k, 2]
                        if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and labels[a, b, c] > 0:
                            found[count] = labels[a, b, c]
                            count += 1
                    begin = end
                    if count > 0:
                        # Negative until all are done: voxels filled in this pass are no sources.
                        labels[z, y, x] = -_most_frequent(found, count)
                        break


@njit(cache=True, nogil=True)
def _most_frequent(values: Any, count: int) -> Any:
    best = values[0]
    most = 0
    for i in range(count):
        same = 0
        for j in range(count):
            same += values[j] == values[i]
        if same > most or (same == most and values[i] < best):
            best, most = values[i], same
    return best


@njit(cache=True, nogil=True)
def _settle(labels: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        labels[i] = abs(labels[i])
