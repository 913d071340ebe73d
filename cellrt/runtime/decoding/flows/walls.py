"""Voxels between cells that belong to none, given to the nearest cell.

A membrane model calls the walls background, biologists expect neighbours to touch. A wall has cells
on both sides; towards the outside of the tissue a cell only gets back the one voxel that the
network was trained to leave off. The search goes outwards through the offsets of a ball, in order
of distance, so that it ends early; voxels in bricks without a cell nearby are skipped altogether.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.threads import in_threads

BRICK = 8  # voxels along an edge
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
    offsets, shells, outer = ball_shells(thickness)
    bricks = np.zeros(brick_shape(labels.shape), np.bool_)
    for bricks_of_slices, z in zip(bricks, range(0, labels.shape[0], BRICK), strict=True):
        occupied = (labels[z : z + BRICK] > 0).any(axis=0)
        for axis, length in enumerate(occupied.shape):
            occupied = np.logical_or.reduceat(occupied, np.arange(0, length, BRICK), axis)
        bricks_of_slices[:] = occupied
    near = spread_bricks(bricks, thickness)
    work = partial(_fill, labels, offsets, shells, outer, near)
    in_threads(labels.shape[0], work, voxels=8 * labels.size)
    flat = labels.reshape(-1)
    in_threads(flat.size, lambda lo, hi: np.abs(flat[lo:hi], flat[lo:hi]), voxels=flat.size)


def ball_shells(radius: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Offsets within `radius`, nearest first, and where each distance's offsets end.

    The last is the number of offsets so near that no opposite cell is asked for.
    """
    reach = np.arange(-int(radius), int(radius) + 1)
    offsets = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    squares = (offsets * offsets).sum(axis=1)
    inside = (squares > 0) & (squares <= radius * radius)
    offsets, squares = offsets[inside], squares[inside]
    order = np.argsort(squares, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(squares[order])) + 1, order.size)
    return offsets[order], ends, int(np.count_nonzero(squares <= _OUTER * _OUTER))


def brick_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Number of bricks along each axis."""
    return tuple(-(-n // BRICK) for n in shape)


def spread_bricks(occupied: npt.NDArray[np.bool_], thickness: float) -> npt.NDArray[np.bool_]:
    """Bricks that have a cell within `thickness` of them, from those that have one inside."""
    for axis in range(3):
        spread = occupied.copy()
        for shift in range(1, math.ceil(thickness / BRICK) + 1):
            to = [slice(None)] * 3
            back = [slice(None)] * 3
            to[axis], back[axis] = slice(shift, None), slice(None, -shift)
            spread[tuple(to)] |= occupied[tuple(back)]
            spread[tuple(back)] |= occupied[tuple(to)]
        occupied = spread
    return occupied


@compiled
def _fill(labels: Any, offsets: Any, shells: Any, outer: int, near: Any, lo: int, hi: int) -> None:
    _, ny, nx = labels.shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] <= 0 and near[z // BRICK, y // BRICK, x // BRICK]:
                    # Negative until all are done: filled voxels are no sources.
                    labels[z, y, x] = -wall_label(labels, offsets, shells, outer, z, y, x)


@compiled
def wall_label(labels: Any, offsets: Any, shells: Any, outer: int, z: int, y: int, x: int) -> Any:
    """Cell to which a voxel of the background goes, 0 for none."""
    nz, ny, nx = labels.shape
    # Of one type from the start: numba compiles what is called with a constant once more.
    nearest = np.int32(0)
    begin = np.int64(0)
    # Where the nearest cell lies: the sum of the offsets that lead to it.
    dz = dy = dx = np.int64(0)
    for shell in range(shells.size):
        end = shells[shell]
        if nearest == 0:
            several = False
            for k in range(begin, end):
                a = z + offsets[k, 0]
                b = y + offsets[k, 1]
                c = x + offsets[k, 2]
                if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and labels[a, b, c] > 0:
                    dz += offsets[k, 0]
                    dy += offsets[k, 1]
                    dx += offsets[k, 2]
                    several = several or (nearest != 0 and labels[a, b, c] != nearest)
                    nearest = labels[a, b, c]
            if several:
                nearest = _most_frequent(labels, offsets, begin, end, z, y, x)
            middle = dz == 0 and dy == 0 and dx == 0
            if nearest > 0 and (end <= outer or middle):
                return nearest
        if nearest > 0 and _opposite(labels, offsets, begin, end, z, y, x, dz, dy, dx):
            return nearest
        begin = end
    return np.int32(0)


@compiled
def _opposite(
    labels: Any,
    offsets: Any,
    begin: int,
    end: int,
    z: int,
    y: int,
    x: int,
    dz: int,
    dy: int,
    dx: int,
) -> bool:
    """Whether one of some offsets leads to a cell and points away from (dz, dy, dx)."""
    nz, ny, nx = labels.shape
    for k in range(begin, end):
        if offsets[k, 0] * dz + offsets[k, 1] * dy + offsets[k, 2] * dx >= 0:
            continue
        a = z + offsets[k, 0]
        b = y + offsets[k, 1]
        c = x + offsets[k, 2]
        if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and labels[a, b, c] > 0:
            return True
    return False


@compiled
def _most_frequent(labels: Any, offsets: Any, begin: int, end: int, z: int, y: int, x: int) -> Any:
    """Cell to which most of some offsets lead; the lower label of two."""
    nz, ny, nx = labels.shape
    best = np.int32(0)
    most = 0
    for i in range(begin, end):
        a = z + offsets[i, 0]
        b = y + offsets[i, 1]
        c = x + offsets[i, 2]
        if not (0 <= a < nz and 0 <= b < ny and 0 <= c < nx) or labels[a, b, c] <= 0:
            continue
        label = labels[a, b, c]
        same = 0
        for j in range(begin, end):
            a = z + offsets[j, 0]
            b = y + offsets[j, 1]
            c = x + offsets[j, 2]
            same += 0 <= a < nz and 0 <= b < ny and 0 <= c < nx and labels[a, b, c] == label
        if same > most or (same == most and label < best):
            best, most = label, same
    return best
