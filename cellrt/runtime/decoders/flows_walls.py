"""Voxels between cells that belong to none, given to the nearest cell.

A membrane model calls the walls background, biologists expect neighbours to touch. A wall has cells
on both sides; towards the outside of the tissue a cell only gets back the one voxel that the
network was trained to leave off. The search goes outwards through the offsets of a ball, in order
of distance, so that it ends early; voxels in bricks without a cell nearby are skipped altogether.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.threads import in_threads

_BRICK = 8  # voxels along an edge
_OUTER = 1  # voxels that a cell grows where nothing lies opposite


def fill_walls(labels: npt.NDArray[np.int32], thickness: float) -> None:
    """Give each voxel of a wall to the nearest cell, in place.

    Background within `thickness` of a cell is a wall when a cell lies on the other side, too: in
    the half space opposite to the nearest one and no farther than `thickness`. Next to a cell
    (distance 1) it is a wall in any case.

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
    # Offsets up to this number are so near that no opposite cell is asked for.
    outer = int(np.count_nonzero((offsets * offsets).sum(axis=1) <= _OUTER * _OUTER))
    in_threads(
        labels.shape[0],
        partial(_fill, labels, offsets, shells, near, outer),
        voxels=8 * labels.size,
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
def _fill(labels: Any, offsets: Any, shells: Any, near: Any, outer: int, lo: int, hi: int) -> None:
    nz, ny, nx = labels.shape
    found = np.empty(offsets.shape[0], np.int32)
    dz = dy = dx = 0  # where the nearest cell lies: the sum of the offsets that lead to it
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] > 0 or not near[z // _BRICK, y // _BRICK, x // _BRICK]:
                    continue
                begin = 0
                nearest = 0
                for end in shells:
                    if nearest > 0:
                        if _opposite(labels, offsets, begin, end, (z, y, x), (dz, dy, dx)):
                            labels[z, y, x] = -nearest
                            break
                        begin = end
                        continue
                    count = dz = dy = dx = 0
                    for k in range(begin, end):
                        a = z + offsets[k, 0]
                        b = y + offsets[k, 1]
                        c = x + offsets[k, 2]
                        if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and labels[a, b, c] > 0:
                            dz += offsets[k, 0]
                            dy += offsets[k, 1]
                            dx += offsets[k, 2]
                            found[count] = labels[a, b, c]
                            count += 1
                    if count > 0:
                        nearest = _most_frequent(found, count)
                        middle = dz == 0 and dy == 0 and dx == 0
                        if (
                            end <= outer
                            or middle
                            or _opposite(labels, offsets, begin, end, (z, y, x), (dz, dy, dx))
                        ):
                            # Negative until all are done: filled voxels are no sources.
                            labels[z, y, x] = -nearest
                            break
                    begin = end


@njit(cache=True, nogil=True)
def _opposite(labels: Any, offsets: Any, begin: int, end: int, at: Any, direction: Any) -> bool:
    """Whether one of some offsets leads to a cell and points away from `direction`."""
    nz, ny, nx = labels.shape
    for k in range(begin, end):
        dz, dy, dx = offsets[k]
        if dz * direction[0] + dy * direction[1] + dx * direction[2] >= 0:
            continue
        z, y, x = at[0] + dz, at[1] + dy, at[2] + dx
        if 0 <= z < nz and 0 <= y < ny and 0 <= x < nx and labels[z, y, x] > 0:
            return True
    return False


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
