"""From the centre of each cell of a label image to its border, along given directions.

A ray walks from voxel to voxel and knows where it crosses their faces, so that radii are exact for
the cell as it is stored, whatever size its voxels have. What a cell encloses counts as cell. A ray
that leaves a cell and comes back ends at that of its exits which puts the least volume on the wrong
side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.decoding.labels.regions import bounding_boxes
from cellrt.threads import in_threads

FLAGS = ("border", "hole", "split", "single_voxel", "centre_moved")
"""It reaches a face of the image, and may go on beyond; it encloses voxels that are not its own;
its parts do not touch each other, not even by a corner; it is one voxel; its centroid is outside of
it, and the voxel of it that is nearest to that is its centre."""

# Cells whose radii are kept at once.
_BLOCK = 512
# Voxels that are looked at for each direction: what threads are worth.
_VOXELS_PER_RAY = 20

# What a voxel of a cell's box is: not seen yet, of the cell, found to be of the cell, beyond it.
_UNSEEN, _CELL, _FOUND, _BEYOND = 0, 1, 2, 3


class Radii(NamedTuple):
    """Cells in order of their label, one row each.

    Attributes
    ----------
    centres : ndarray of float64, shape (cells, 3)
        (z, y, x) in voxels, from the centre of the image's first voxel.
    values : ndarray of float32, shape (cells, directions) or (cells, numbers)
        Radii, or what describes them.
    flags : ndarray of bool, shape (cells, 5)
        The columns are `FLAGS`.
    misplaced_share : ndarray of float64, shape (cells,)
        Volume on the wrong side of the radii, as a share of the cell's: what is farther from the
        centre than they are, and gaps that are nearer. 0 for a star-convex cell.
    """

    centres: NDArray[np.float64]
    values: NDArray[np.float32]
    flags: NDArray[np.bool_]
    misplaced_share: NDArray[np.float64]


def measure_radii(
    labels: NDArray[np.int32],
    count: int,
    directions: NDArray[np.float64],
    spacing: tuple[float, float, float],
    describe: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> Radii:
    """Measure the radii of all cells along the same directions.

    Parameters
    ----------
    labels : contiguous ndarray of int32, shape (z, y, x)
        Cells are 1 to `count`, all of which occur; the rest is background.
    count : int
    directions : ndarray, shape (directions, 3)
        Unit vectors (z, y, x).
    spacing : (z, y, x)
        Size of a voxel, in the unit that radii shall have.
    describe : callable, optional
        Takes the radii of some cells, one row each; what it returns for each is kept in place of
        radii, which for many cells would fill the memory.
    """
    centres, flags = np.zeros((count, 3)), np.zeros((count, len(FLAGS)), np.bool_)
    misplaced_share = np.zeros(count)
    boxes = bounding_boxes(labels, count)
    signs, steps = _rays(directions, spacing)
    size = np.asarray(spacing, np.float64)

    def block(start: int, stop: int) -> NDArray[np.float32]:
        rows = slice(start, stop)
        radii = np.empty((stop - start, len(directions)), np.float32)

        def part(lo: int, hi: int) -> None:
            _measure(
                labels, boxes, start + lo + 1, signs, steps, size, radii[lo:hi],
                centres[rows][lo:hi], flags[rows][lo:hi], misplaced_share[rows][lo:hi],
            )  # fmt: skip

        if start < stop:
            in_threads(stop - start, part, voxels=radii.size * _VOXELS_PER_RAY)
        # Not in these threads: what computes with matrices has threads of its own.
        return radii if describe is None else describe(radii)

    # Without cells one empty block says how many numbers describe a cell.
    starts = range(0, max(count, 1), _BLOCK)
    values = np.concatenate([block(start, min(start + _BLOCK, count)) for start in starts])
    return Radii(centres, values, flags, misplaced_share)


def _rays(
    directions: NDArray[np.float64], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Signs of directions, and how far it is along each from one face of a voxel to the next."""
    signs = np.sign(directions).astype(np.int64)
    # A ray that runs along a face never crosses it.
    never = np.full(directions.shape, 1e30)
    steps = np.divide(np.asarray(spacing), np.abs(directions), out=never, where=signs != 0)
    return np.ascontiguousarray(signs), steps


@compiled
def _measure(
    labels: Any,
    boxes: Any,
    first: int,
    signs: Any,
    steps: Any,
    size: Any,
    radii: Any,
    centres: Any,
    flags: Any,
    misplaced_share: Any,
) -> None:
    for row in range(radii.shape[0]):
        label = first + row
        box = boxes[label]
        # One voxel around the cell, in which every ray ends.
        ny, nx = box[3] - box[2] + 2, box[5] - box[4] + 2
        nz = box[1] - box[0] + 2
        state = np.zeros(nz * ny * nx, np.uint8)
        volume = 0
        sums = np.zeros(3)
        for z in range(box[0], box[1]):
            for y in range(box[2], box[3]):
                at = ((z - box[0] + 1) * ny + y - box[2] + 1) * nx + 1 - box[4]
                for x in range(box[4], box[5]):
                    if labels[z, y, x] == label:
                        state[at + x] = _CELL
                        volume += 1
                        sums[0] += z - box[0] + 1
                        sums[1] += y - box[2] + 1
                        sums[2] += x - box[4] + 1
        centre = sums / volume
        flag = flags[row]
        for axis in range(3):
            if box[2 * axis] == 0 or box[2 * axis + 1] == labels.shape[axis]:
                flag[0] = True
        stack = np.empty(state.size, np.int64)
        flag[1] = _fill_beyond(state, stack, ny, nx)
        flag[2] = _find_part(state, stack, ny, nx) < volume
        flag[3] = volume == 1
        here = np.empty(3, np.int64)
        for axis in range(3):
            here[axis] = int(np.floor(centre[axis] + 0.5))
        if state[(here[0] * ny + here[1]) * nx + here[2]] == _BEYOND:
            flag[4] = True
            _move_into(state, centre, here, size, ny, nx)
        misplaced_share[row] = _walk(
            state, centre, here, nz, ny, nx, signs, steps, size, radii[row]
        )
        for axis in range(3):
            centres[row, axis] = centre[axis] - 1.0 + box[2 * axis]


@compiled
def _fill_beyond(state: Any, stack: Any, ny: int, nx: int) -> Any:
    """Mark what is outside of a cell, by way of faces; return whether anything is enclosed."""
    count = 1
    stack[0] = 0
    state[0] = _BEYOND
    neighbours = np.array([-ny * nx, -nx, -1, 1, nx, ny * nx])
    while count > 0:
        count -= 1
        here = stack[count]
        # A step from the end of a line to the next one stays in the layer around the cell.
        for step in neighbours:
            there = here + step
            if 0 <= there < state.size and state[there] == _UNSEEN:
                state[there] = _BEYOND
                stack[count] = there
                count += 1
    enclosed = 0
    for i in range(state.size):
        if state[i] == _UNSEEN:
            enclosed += 1
    return enclosed > 0


@compiled
def _find_part(state: Any, stack: Any, ny: int, nx: int) -> Any:
    """Mark the part of a cell that its first voxel is in, corners included; return its voxels."""
    first = 0
    while state[first] != _CELL:
        first += 1
    stack[0] = first
    state[first] = _FOUND
    count, volume = 1, 1
    neighbours = np.empty(27, np.int64)
    for i in range(27):
        neighbours[i] = ((i // 9 - 1) * ny + i // 3 % 3 - 1) * nx + i % 3 - 1
    while count > 0:
        count -= 1
        here = stack[count]
        for step in neighbours:
            there = here + step
            if state[there] == _CELL:
                state[there] = _FOUND
                stack[count] = there
                count += 1
                volume += 1
    return volume


@compiled
def _move_into(state: Any, centre: Any, here: Any, size: Any, ny: int, nx: int) -> None:
    """Move a centre that is outside of its cell to the nearest voxel of the cell."""
    nearest = np.inf
    for i in range(state.size):
        if state[i] != _BEYOND:
            z, y, x = i // (ny * nx), i // nx % ny, i % nx
            dz = (z - centre[0]) * size[0]
            dy = (y - centre[1]) * size[1]
            dx = (x - centre[2]) * size[2]
            square = dz * dz + dy * dy + dx * dx
            if square < nearest:
                nearest = square
                here[0], here[1], here[2] = z, y, x
    for axis in range(3):
        centre[axis] = here[axis]


@compiled
def _walk(
    state: Any,
    centre: Any,
    here: Any,
    nz: int,
    ny: int,
    nx: int,
    signs: Any,
    steps: Any,
    size: Any,
    radii: Any,
) -> Any:
    """Walk along all rays; return the volume on their wrong side as a share of the cell's."""
    start = (here[0] * ny + here[1]) * nx + here[2]
    # From the centre to the faces of its voxel below it, in the radii's unit.
    below = np.empty(3)
    for axis in range(3):
        below[axis] = (centre[axis] - here[axis] + 0.5) * size[axis]
    strides = np.array([ny * nx, nx, 1])
    ends = np.array([nz - 1, ny - 1, nx - 1])
    total, right = 0.0, 0.0
    following = np.empty(3)
    left = np.empty(3, np.int64)
    for ray in range(radii.size):
        for axis in range(3):
            step, sign = steps[ray, axis], signs[ray, axis]
            to_face = below[axis] if sign < 0 else size[axis] - below[axis]
            following[axis] = to_face / size[axis] * step if sign != 0 else 1e30
            left[axis] = here[axis] if sign < 0 else ends[axis] - here[axis]
        at = start
        inside = True
        entered, cell, balance = 0.0, 0.0, 0.0
        best, radius = -1.0, 0.0
        while True:
            axis = 0 if following[0] < following[1] else 1
            if following[2] < following[axis]:
                axis = 2
            length = following[axis]
            following[axis] += steps[ray, axis]
            at += signs[ray, axis] * strides[axis]
            left[axis] -= 1
            now = state[at] != _BEYOND
            if now != inside:
                cubed = length * length * length
                if inside:
                    cell += cubed - entered
                    balance += cubed - entered
                    if balance > best:
                        best, radius = balance, length
                else:
                    balance -= cubed - entered
                entered = cubed
                inside = now
            if left[axis] == 0:
                break
        radii[ray] = radius
        total += cell
        right += best
    return max(0.0, 1.0 - right / total)
