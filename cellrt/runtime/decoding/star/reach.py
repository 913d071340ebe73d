"""The part of a map that shapes reach, when their radii are multiplied with something.

That a voxel is within reach of any shape is all that is asked. Within the ball inside of a shape
every voxel is, which leaves few that have to be compared with radii.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.decoding.star.harmonic_ratio import (
    MARGIN,
    harmonic_ratios,
    recurrence,
)
from cellrt.runtime.decoding.star.harmonics import norms
from cellrt.runtime.decoding.star.polyhedron_ratio import (
    faces_of,
    no_tetrahedra,
    polyhedron_ratios,
)
from cellrt.runtime.decoding.star.rasterise import AT_ONCE, boxes_of, largest_plane, row_within
from cellrt.runtime.decoding.star.tetrahedra import nearest_faces
from cellrt.threads import in_threads

# Balls inside are smaller by this, so that no rounding makes one reach farther than its shape.
_ROUNDING = 1e-6
# Voxels of a row that are passed over together where none of them is left to be looked at.
_BLOCK = 16
# A voxel of a box takes about as long as this many that are only read.
_COST = 2


def reach_of_harmonics(
    heights: NDArray[np.uint8],
    centres: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    extent: NDArray[np.float64],
    limit: float,
) -> NDArray[np.uint8]:
    """Keep a map where shapes reach.

    Parameters
    ----------
    heights : (z, y, x) uint8 array
    centres : ndarray of float64, shape (cells, 3)
        In voxels of the map, from the centre of the first one.
    coefficients : ndarray of float64, shape (cells, (order + 1)²)
    extent : ndarray of float64, shape (cells, 2)
        The shortest and the longest radius of each, as far as they are known.
    limit : float
        What all radii are multiplied with.

    Returns
    -------
    (z, y, x) uint8 array
        `heights`, 0 beyond.
    """
    order = math.isqrt(coefficients.shape[1]) - 1
    up, down = recurrence(order)
    inner, outer = extent[:, 0] / MARGIN * limit, extent[:, 1] * (MARGIN * limit)
    given = (coefficients * norms(order), order, up, down, limit)
    z, y, x = heights.shape
    boxes = boxes_of((z, y, x), (1.0, 1.0, 1.0), centres, np.maximum(outer, 0.0))
    return _kept(heights, centres, boxes, inner, outer, partial(_keep_harmonics, *given))


def reach_of_rays(
    heights: NDArray[np.uint8],
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    rays: NDArray[np.float64],
    limit: float,
) -> NDArray[np.uint8]:
    """Keep a map where polyhedra reach, whose radii go along `rays`; as `reach_of_harmonics`."""
    faces = faces_of(rays)
    inner = nearest_faces(radii, rays, faces.corners) * limit
    outer = radii.max(axis=1, initial=0.0) * limit

    def keep(*slab: Any) -> None:
        _keep_rays(radii, faces, limit, no_tetrahedra(faces), *slab)

    # Of long cells the box is much smaller than that of the ball around them.
    boxes = np.empty((len(radii), 6), np.int64)
    for axis in range(3):
        ends = np.zeros((2, len(radii)))
        for ray, along in enumerate(rays[:, axis] * limit):
            end = radii[:, ray] * along
            np.minimum(ends[0], end, out=ends[0])
            np.maximum(ends[1], end, out=ends[1])
        low, high = centres[:, axis] + ends
        boxes[:, 2 * axis] = np.clip(np.ceil(low), 0, heights.shape[axis])
        boxes[:, 2 * axis + 1] = np.clip(np.floor(high) + 1, 0, heights.shape[axis])
    return _kept(heights, centres, boxes, inner, outer, keep)


def _kept(
    heights: NDArray[np.uint8],
    centres: NDArray[np.float64],
    boxes: NDArray[np.int64],
    inner: NDArray[np.float64],
    outer: NDArray[np.float64],
    keep: Callable[..., None],
) -> NDArray[np.uint8]:
    kept = np.zeros_like(heights)
    z, y, x = heights.shape
    present = np.flatnonzero((outer > 0) & (boxes[:, 1::2] > boxes[:, ::2]).all(axis=1))
    inner = inner * (1 - _ROUNDING)
    voxels = int(np.prod(boxes[present, 1::2] - boxes[present, ::2], axis=1).sum())

    def slab(lo: int, hi: int) -> None:
        cells = present[(boxes[present, 0] < hi) & (boxes[present, 1] > lo)]
        if cells.size:
            _keep_balls(heights, kept, lo, hi, cells, boxes, centres, inner)
            rest = np.zeros((hi - lo, y, -(-x // _BLOCK)), np.uint8)
            _count_left(heights, kept, rest, lo)
            keep(heights, kept, rest, lo, hi, cells, boxes, centres, outer)

    in_threads(z, slab, voxels=_COST * voxels)
    return kept


@compiled
def _keep_balls(
    heights: Any,
    kept: Any,
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    centres: Any,
    inner: Any,
) -> None:
    for cell in cells:
        if inner[cell] <= 0.0:
            continue
        box, centre = boxes[cell], centres[cell]
        for z in range(max(lo, box[0]), min(hi, box[1])):
            for y in range(box[2], box[3]):
                square = inner[cell] ** 2 - (z - centre[0]) ** 2 - (y - centre[1]) ** 2
                if square < 0.0:
                    continue
                half = math.sqrt(square)
                first = max(box[4], math.ceil(centre[2] - half))
                last = min(box[5], math.floor(centre[2] + half) + 1)
                for x in range(first, last):
                    kept[z, y, x] = heights[z, y, x]


@compiled
def _keep_harmonics(
    scaled: Any,
    order: int,
    up: Any,
    down: Any,
    limit: Any,
    heights: Any,
    kept: Any,
    rest: Any,
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    centres: Any,
    outer: Any,
) -> None:
    most = AT_ONCE + largest_plane(boxes, cells)
    away, ratios = np.empty((3, most)), np.empty(most, np.float32)
    places = np.empty((3, most), np.int64)
    for cell in cells:
        box, centre = boxes[cell], centres[cell]
        count, end = 0, min(hi, box[1])
        for z in range(max(lo, box[0]), end):
            count = _left(heights, kept, rest, lo, z, box, centre, outer[cell], away, places, count)
            if count < AT_ONCE and z + 1 < end:
                continue
            harmonic_ratios(scaled[cell], order, up, down, outer[cell], limit, away, count, ratios)
            _keep(heights, kept, rest, lo, places, ratios, count)
            count = 0


@compiled
def _count_left(heights: Any, kept: Any, rest: Any, lo: int) -> None:
    """Count in each block of a slab the voxels of the map that are not kept yet."""
    for z in range(rest.shape[0]):
        for y in range(kept.shape[1]):
            for x in range(kept.shape[2]):
                rest[z, y, x // _BLOCK] += kept[lo + z, y, x] != heights[lo + z, y, x]


@compiled
def _left(
    heights: Any,
    kept: Any,
    rest: Any,
    lo: int,
    z: int,
    box: Any,
    centre: Any,
    outer: Any,
    away: Any,
    places: Any,
    count: int,
) -> int:
    """Add to a list what a shape may reach of a plane and is not kept yet; returns its length."""
    dz = z - centre[0]
    for y in range(box[2], box[3]):
        dy = y - centre[1]
        square = outer**2 - dz**2 - dy**2
        low, high = row_within(square, centre[2], 1.0, box[4], box[5])
        for block in range(low // _BLOCK, (high - 1) // _BLOCK + 1):
            if rest[z - lo, y, block] == 0:
                continue
            for x in range(max(low, block * _BLOCK), min(high, (block + 1) * _BLOCK)):
                if kept[z, y, x] == heights[z, y, x]:
                    continue
                away[0, count], away[1, count], away[2, count] = dz, dy, x - centre[2]
                places[0, count], places[1, count], places[2, count] = z, y, x
                count += 1
    return count


@compiled
def _keep(
    heights: Any, kept: Any, rest: Any, lo: int, places: Any, ratios: Any, count: int
) -> None:
    """Keep those of some voxels that are within a shape."""
    for k in range(count):
        if ratios[k] >= 0.0:
            z, y, x = places[0, k], places[1, k], places[2, k]
            kept[z, y, x] = heights[z, y, x]
            rest[z - lo, y, x // _BLOCK] -= 1


@compiled
def _keep_rays(
    radii: Any,
    faces: Any,
    limit: Any,
    known: Any,
    heights: Any,
    kept: Any,
    rest: Any,
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    centres: Any,
    outer: Any,
) -> None:
    size = np.ones(3)
    most = AT_ONCE + largest_plane(boxes, cells)
    away, ratios = np.empty((3, most)), np.empty(most, np.float32)
    places = np.empty((3, most), np.int64)
    for cell in cells:
        box, centre = boxes[cell], centres[cell]
        count, end = 0, min(hi, box[1])
        for z in range(max(lo, box[0]), end):
            count = _left(heights, kept, rest, lo, z, box, centre, outer[cell], away, places, count)
            if count < AT_ONCE and z + 1 < end:
                continue
            polyhedron_ratios(
                radii[cell], faces, known, cell, outer[cell], limit, size, centre, box,
                away, places, count, ratios,
            )  # fmt: skip
            _keep(heights, kept, rest, lo, places, ratios, count)
            count = 0
