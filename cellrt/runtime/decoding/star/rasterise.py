"""Shapes become voxels, each shape inside its own box and all of them at the same time.

`rasterise_cuda` does the same on a GPU: what is computed of a voxel, in `harmonic_ratio` and
`tetrahedra`, is compiled for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled, inlined
from cellrt.geometry import LabelArray, Shape
from cellrt.runtime.decoding.rounding import dot
from cellrt.runtime.decoding.star.harmonic_ratio import (
    MARGIN,
    harmonic_ratios,
    recurrence,
)
from cellrt.runtime.decoding.star.harmonics import norms
from cellrt.runtime.decoding.star.tetrahedra import faces_between, tetrahedron, tetrahedron_ratio
from cellrt.threads import in_threads

# A voxel of a box takes about as long as this many that are only read.
_COST = 16
AT_ONCE = 512
"""Voxels that are enough to be compared with a shape together; the rest of a plane is added."""


def rasterise_harmonics(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    reach: NDArray[np.float64],
    *,
    limit: float = 1.0,
    first: bool = False,
) -> LabelArray:
    """Label the voxels that are nearer to a centre than its radius in their direction.

    Parameters
    ----------
    shape : (z, y, x)
        Of the image, in voxels.
    spacing : (z, y, x)
        Size of a voxel; its unit is that of all other lengths.
    centres : ndarray of float64, shape (cells, 3)
        (z, y, x) from the centre of the first voxel; they may be outside of the image.
    coefficients : ndarray of float64, shape (cells, (order + 1)²)
        Of real orthonormal spherical harmonics.
    reach : ndarray of float64, shape (cells,)
        The largest radius of each, as far as it is known.
    limit : float
        What all radii are multiplied with.
    first : bool
        Whether a voxel of several cells is of the first of them.

    Returns
    -------
    ndarray of int32
        1 + index of a cell, 0 for background. A voxel of several cells is of that for which
        distance / radius is the smallest, and of equals of the first, unless asked otherwise.
    """
    order = math.isqrt(coefficients.shape[1]) - 1
    scaled = coefficients * norms(order)
    up, down = recurrence(order)
    reach = reach * (MARGIN * limit)
    draw = partial(_draw_harmonics, scaled, order, up, down, limit, first, reach)
    return _by_slabs(shape, spacing, centres, reach, draw, first)


def rasterise_rays(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    rays: NDArray[np.float64],
    *,
    limit: float = 1.0,
    first: bool = False,
) -> LabelArray:
    """Label the voxels inside of polyhedra, whose corners are at the ends of rays.

    Parameters
    ----------
    shape, spacing, centres
        As for `rasterise_harmonics`.
    radii : ndarray of float64, shape (cells, rays)
    rays : ndarray of float64, shape (rays, 3)
        Unit vectors (z, y, x), four or more and all around.
    limit, first
        As for `rasterise_harmonics`.

    Returns
    -------
    ndarray of int32
        As `rasterise_harmonics`; the radius is that of the polyhedron's face.
    """
    faces = faces_between(rays)
    reach = radii.max(axis=1, initial=0.0) * limit
    draw = partial(_draw_polyhedra, radii, rays, faces, limit, first)
    return _by_slabs(shape, spacing, centres, reach, draw, first)


class Masks(NamedTuple):
    """Shapes as voxels, each in its own box.

    Attributes
    ----------
    boxes : ndarray of int64, shape (cells, 6)
        First and past-the-last voxel along z, y, x.
    starts : ndarray of int64, shape (cells,)
        Where the voxels of each begin in `voxels`.
    voxels : ndarray of uint8
        1 where a voxel is of the cell.
    volumes : ndarray of int64, shape (cells,)
    """

    boxes: NDArray[np.int64]
    starts: NDArray[np.int64]
    voxels: NDArray[np.uint8]
    volumes: NDArray[np.int64]


def harmonic_masks(
    shape: Shape,
    centres: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> Masks:
    """Voxels of each shape, whatever others there are; parameters as for `rasterise_harmonics`."""
    order = math.isqrt(coefficients.shape[1]) - 1
    scaled = coefficients * norms(order)
    up, down = recurrence(order)
    boxes = boxes_of(shape, (1.0, 1.0, 1.0), centres, np.maximum(reach * MARGIN, 0.0))
    ends = np.cumsum(np.prod(np.maximum(boxes[:, 1::2] - boxes[:, ::2], 0), axis=1))
    total = int(ends[-1]) if len(ends) else 0
    starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
    voxels, volumes = np.zeros(total, np.uint8), np.zeros(len(centres), np.int64)
    shapes = (scaled, order, up, down, reach * MARGIN, centres)
    work = partial(_fill_masks, *shapes, boxes, starts, voxels, volumes)
    in_threads(len(centres), work, voxels=_COST * total)
    return Masks(boxes, starts, voxels, volumes)


def _by_slabs(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    reach: NDArray[np.float64],
    draw: Callable[..., None],
    first: bool,
) -> LabelArray:
    """Draw cells slab by slab, as two threads must not write the same voxel.

    A slab knows how deep each voxel is in its cell so far: distance / radius.
    """
    boxes = boxes_of(shape, spacing, centres, np.maximum(reach, 0.0))
    labels = np.zeros(shape, np.int32)
    present = np.flatnonzero((reach > 0) & (boxes[:, 1::2] > boxes[:, ::2]).all(axis=1))
    size = np.asarray(spacing, np.float64)
    voxels = int(np.prod(boxes[present, 1::2] - boxes[present, ::2], axis=1).sum())

    def slab(lo: int, hi: int) -> None:
        cells = present[(boxes[present, 0] < hi) & (boxes[present, 1] > lo)]
        if cells.size:
            depth = np.full((0, 0, 0) if first else (hi - lo, *shape[1:]), np.inf, np.float32)
            draw(labels, depth, lo, hi, cells, boxes, size, centres)

    in_threads(shape[0], slab, voxels=_COST * voxels)
    return labels


def boxes_of(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> NDArray[np.int64]:
    """First and past-the-last voxel of each cell along z, y, x, inside of the image."""
    boxes = np.zeros((len(centres), 6), np.int64)
    for axis in range(3):
        low = np.ceil((centres[:, axis] - reach) / spacing[axis])
        high = np.floor((centres[:, axis] + reach) / spacing[axis]) + 1
        boxes[:, 2 * axis] = np.clip(low, 0, shape[axis])
        boxes[:, 2 * axis + 1] = np.clip(high, 0, shape[axis])
    return boxes


@inlined
def row_within(square: Any, centre: Any, size: Any, first: Any, last: Any) -> Any:
    """Part of a row of voxels that is within a sphere, or a little more of it.

    Parameters
    ----------
    square : float
        Of half the length of what the sphere contains of the row's line; below 0 where nothing.
    centre, size : float
        Of the sphere and of a voxel, along x.
    first, last : int
        Of the row.
    """
    half = math.sqrt(max(square, 0.0))
    low = max(first, math.floor((centre - half) / size))
    high = min(last, math.ceil((centre + half) / size) + 1)
    return low, high


@compiled
def largest_plane(boxes: Any, cells: Any) -> int:
    """Most voxels along y and x of the boxes of some cells."""
    most = 0
    for cell in cells:
        most = max(most, (boxes[cell, 3] - boxes[cell, 2]) * (boxes[cell, 5] - boxes[cell, 4]))
    return most


@compiled
def _draw_harmonics(
    scaled: Any,
    order: int,
    up: Any,
    down: Any,
    limit: Any,
    first: bool,
    reach: Any,
    labels: Any,
    depth: Any,
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    size: Any,
    centres: Any,
) -> None:
    most = AT_ONCE + largest_plane(boxes, cells)
    away, ratios = np.empty((3, most)), np.empty(most, np.float32)
    places = np.empty((3, most), np.int64)
    for cell in cells:
        box = boxes[cell]
        count, end = 0, min(hi, box[1])
        for z in range(max(lo, box[0]), end):
            count = _plane(
                labels, first, reach[cell], z, size, centres[cell], box, away, places, count
            )
            if count < AT_ONCE and z + 1 < end:
                continue
            harmonic_ratios(scaled[cell], order, up, down, reach[cell], limit, away, count, ratios)
            _label(labels, depth, lo, first, cell + 1, places, ratios, count)
            count = 0


@compiled
def _fill_masks(
    scaled: Any,
    order: int,
    up: Any,
    down: Any,
    reach: Any,
    centres: Any,
    boxes: Any,
    starts: Any,
    voxels: Any,
    volumes: Any,
    lo: int,
    hi: int,
) -> None:
    most = AT_ONCE + largest_plane(boxes, np.arange(lo, hi))
    away, ratios = np.empty((3, most)), np.empty(most, np.float32)
    places = np.empty(most, np.int64)
    for cell in range(lo, hi):
        box = boxes[cell]
        at, count = starts[cell] - box[4], 0
        for z in range(box[0], box[1]):
            dz = z - centres[cell, 0]
            for y in range(box[2], box[3]):
                dy = y - centres[cell, 1]
                square = reach[cell] ** 2 - dz**2 - dy**2
                low, high = row_within(square, centres[cell, 2], 1.0, box[4], box[5])
                for x in range(low, high):
                    away[0, count], away[1, count] = dz, dy
                    away[2, count] = x - centres[cell, 2]
                    places[count] = at + x
                    count += 1
                at += box[5] - box[4]
            if count < AT_ONCE and z + 1 < box[1]:
                continue
            harmonic_ratios(scaled[cell], order, up, down, reach[cell], 1.0, away, count, ratios)
            for k in range(count):
                if ratios[k] >= 0.0:
                    voxels[places[k]] = 1
                    volumes[cell] += 1
            count = 0


@compiled
def _plane(
    labels: Any,
    first: bool,
    reach: Any,
    z: int,
    size: Any,
    centre: Any,
    box: Any,
    away: Any,
    places: Any,
    count: int,
) -> int:
    """Add to a list what a cell may have of a plane; returns the length of the list."""
    dz = z * size[0] - centre[0]
    for y in range(box[2], box[3]):
        dy = y * size[1] - centre[1]
        square = reach**2 - dz**2 - dy**2
        low, high = row_within(square, centre[2], size[2], box[4], box[5])
        for x in range(low, high):
            if first and labels[z, y, x] > 0:
                continue
            away[0, count], away[1, count], away[2, count] = dz, dy, x * size[2] - centre[2]
            places[0, count], places[1, count], places[2, count] = z, y, x
            count += 1
    return count


@compiled
def _label(
    labels: Any, depth: Any, lo: int, first: bool, label: int, places: Any, ratios: Any, count: int
) -> None:
    """Label those of some voxels that are in a cell, and deeper than in those before."""
    for k in range(count):
        if ratios[k] < 0.0:
            continue
        z, y, x = places[0, k], places[1, k], places[2, k]
        if first:
            labels[z, y, x] = label
        elif ratios[k] < depth[z - lo, y, x]:
            depth[z - lo, y, x] = ratios[k]
            labels[z, y, x] = label


@compiled
def _draw_polyhedra(
    radii: Any,
    directions: Any,
    faces: Any,
    limit: Any,
    first: bool,
    labels: Any,
    depth: Any,
    lo: int,
    hi: int,
    cells: Any,
    boxes: Any,
    size: Any,
    centres: Any,
) -> None:
    corners, inverse, part = np.empty((3, 3)), np.empty((3, 3)), np.empty(6, np.int64)
    for cell in cells:
        centre = centres[cell]
        for face in faces:
            tetrahedron(
                radii[cell],
                directions,
                face,
                limit,
                size,
                centre,
                boxes[cell],
                corners,
                inverse,
                part,
            )
            for z in range(max(lo, part[0]), min(hi, part[1])):
                dz = z * size[0] - centre[0]
                for y in range(part[2], part[3]):
                    dy = y * size[1] - centre[1]
                    for x in range(part[4], part[5]):
                        dx = x * size[2] - centre[2]
                        a = dot(dz, dy, dx, inverse[0, 0], inverse[1, 0], inverse[2, 0])
                        b = dot(dz, dy, dx, inverse[0, 1], inverse[1, 1], inverse[2, 1])
                        c = dot(dz, dy, dx, inverse[0, 2], inverse[1, 2], inverse[2, 2])
                        ratio = tetrahedron_ratio(a, b, c)
                        if ratio < 0.0:
                            continue
                        if first:
                            if labels[z, y, x] == 0:
                                labels[z, y, x] = cell + 1
                            continue
                        if ratio < depth[z - lo, y, x]:
                            depth[z - lo, y, x] = ratio
                            labels[z, y, x] = cell + 1
