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
from cellrt.runtime.decoding.rounding import dot
from cellrt.runtime.decoding.star.harmonic_ratio import (
    MARGIN,
    harmonic_ratio,
    radius_along,
    recurrence,
)
from cellrt.runtime.decoding.star.harmonics import norms
from cellrt.runtime.decoding.star.rasterise import boxes_of
from cellrt.runtime.decoding.star.tetrahedra import (
    faces_between,
    nearest_faces,
    tetrahedron,
    tetrahedron_ratio,
)
from cellrt.threads import in_threads

# Balls inside are smaller by this, so that no rounding makes one reach farther than its shape.
_ROUNDING = 1e-6
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
    return _kept(heights, centres, inner, outer, partial(_keep_harmonics, *given))


def reach_of_rays(
    heights: NDArray[np.uint8],
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    rays: NDArray[np.float64],
    limit: float,
) -> NDArray[np.uint8]:
    """Keep a map where polyhedra reach, whose radii go along `rays`; as `reach_of_harmonics`."""
    faces = faces_between(rays)
    inner = nearest_faces(radii, rays, faces) * limit
    outer = radii.max(axis=1, initial=0.0) * limit
    given = (radii, rays, faces, limit)
    return _kept(heights, centres, inner, outer, partial(_keep_rays, *given))


def _kept(
    heights: NDArray[np.uint8],
    centres: NDArray[np.float64],
    inner: NDArray[np.float64],
    outer: NDArray[np.float64],
    keep: Callable[..., None],
) -> NDArray[np.uint8]:
    kept = np.zeros_like(heights)
    z, y, x = heights.shape
    boxes = boxes_of((z, y, x), (1.0, 1.0, 1.0), centres, np.maximum(outer, 0.0))
    present = np.flatnonzero((outer > 0) & (boxes[:, 1::2] > boxes[:, ::2]).all(axis=1))
    inner = inner * (1 - _ROUNDING)
    voxels = int(np.prod(boxes[present, 1::2] - boxes[present, ::2], axis=1).sum())

    def slab(lo: int, hi: int) -> None:
        cells = present[(boxes[present, 0] < hi) & (boxes[present, 1] > lo)]
        if cells.size:
            _keep_balls(heights, kept, lo, hi, cells, boxes, centres, inner)
            keep(heights, kept, lo, hi, cells, boxes, centres, outer)

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
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    centres: Any,
    outer: Any,
) -> None:
    for cell in cells:
        box, centre, c = boxes[cell], centres[cell], scaled[cell]
        for z in range(max(lo, box[0]), min(hi, box[1])):
            dz = z - centre[0]
            for y in range(box[2], box[3]):
                dy = y - centre[1]
                for x in range(box[4], box[5]):
                    if kept[z, y, x] == heights[z, y, x]:
                        continue
                    dx = x - centre[2]
                    distance = math.sqrt(dot(dz, dy, dx, dz, dy, dx))
                    if distance > outer[cell]:
                        continue
                    inverse = 1.0 / distance if distance > 0.0 else 0.0
                    radius = radius_along(
                        c, order, up, down, dz * inverse, dy * inverse, dx * inverse
                    )
                    if harmonic_ratio(distance, radius, limit) >= 0.0:
                        kept[z, y, x] = heights[z, y, x]


@compiled
def _keep_rays(
    radii: Any,
    directions: Any,
    faces: Any,
    limit: Any,
    heights: Any,
    kept: Any,
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    centres: Any,
    outer: Any,
) -> None:
    corners, inverse, part = np.empty((3, 3)), np.empty((3, 3)), np.empty(6, np.int64)
    size, rest = np.ones(3), np.empty(6, np.int64)
    for cell in cells:
        centre, box = centres[cell], boxes[cell]
        # What is left of the box is often nothing.
        rest[0], rest[2], rest[4] = hi, box[3], box[5]
        rest[1], rest[3], rest[5] = lo, box[2], box[4]
        for z in range(max(lo, box[0]), min(hi, box[1])):
            for y in range(box[2], box[3]):
                square = outer[cell] ** 2 - (z - centre[0]) ** 2 - (y - centre[1]) ** 2
                half = math.sqrt(max(square, 0.0)) + 1.0
                for x in range(
                    max(box[4], math.floor(centre[2] - half)),
                    min(box[5], math.ceil(centre[2] + half) + 1),
                ):
                    if kept[z, y, x] != heights[z, y, x]:
                        rest[0], rest[1] = min(rest[0], z), z + 1
                        rest[2], rest[3] = min(rest[2], y), max(rest[3], y + 1)
                        rest[4], rest[5] = min(rest[4], x), max(rest[5], x + 1)
        if rest[0] >= rest[1]:
            continue
        for face in faces:
            tetrahedron(
                radii[cell], directions, face, limit, size, centre, rest, corners, inverse, part
            )
            for z in range(part[0], part[1]):
                dz = z - centre[0]
                for y in range(part[2], part[3]):
                    dy = y - centre[1]
                    for x in range(part[4], part[5]):
                        if kept[z, y, x] == heights[z, y, x]:
                            continue
                        dx = x - centre[2]
                        a = dot(dz, dy, dx, inverse[0, 0], inverse[1, 0], inverse[2, 0])
                        b = dot(dz, dy, dx, inverse[0, 1], inverse[1, 1], inverse[2, 1])
                        c = dot(dz, dy, dx, inverse[0, 2], inverse[1, 2], inverse[2, 2])
                        if tetrahedron_ratio(a, b, c) >= 0.0:
                            kept[z, y, x] = heights[z, y, x]
