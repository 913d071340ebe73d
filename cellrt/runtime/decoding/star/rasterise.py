"""Shapes become voxels, each shape inside its own box and all of them at the same time.

`rasterise_cuda` does the same on a GPU: what is computed of a voxel is compiled for both from the
functions here, which round each product before they add to it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled, inlined
from cellrt.geometry import LabelArray, Shape
from cellrt.runtime.decoding.rounding import times
from cellrt.runtime.decoding.star.directions import directions
from cellrt.threads import in_threads

MARGIN = 1.02
"""Between the directions in which it is known, a shape may reach a little farther."""
# A voxel of a box takes about as long as this many that are only read.
_COST = 16
# A voxel on an edge between two faces is of both rather than of none.
_ROUNDING = 1e-9


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


def faces_between(rays: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles between neighbouring directions: the indices of three each."""
    from scipy.spatial import ConvexHull

    return np.asarray(ConvexHull(rays).simplices.astype(np.int64))


@functools.cache
def _polyhedron_growth(count: int) -> float:
    from scipy.spatial import ConvexHull

    return float((4 / 3 * np.pi / ConvexHull(directions(count)).volume) ** (1 / 3))


def as_large_as_cells(radii: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengthen rays so that the polyhedron between their ends is as large as the cell.

    Corners on the border of a round cell leave all else of the polyhedron inside of it: between 36
    rays of equal length lies 0.86 of the ball's volume.

    Parameters
    ----------
    radii : ndarray, shape (cells, number of directions)
        Along the shipped directions of that number.
    """
    if not len(radii):
        return radii
    return np.asarray(radii * np.float32(_polyhedron_growth(radii.shape[1])))


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


def norms(order: int) -> NDArray[np.float64]:
    """What makes harmonics orthonormal, one factor for each."""
    factors = np.empty((order + 1) ** 2)
    for degree in range(order + 1):
        for m in range(-degree, degree + 1):
            below, above = math.factorial(degree - abs(m)), math.factorial(degree + abs(m))
            norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * below / above)
            factors[degree * (degree + 1) + m] = norm * (math.sqrt(2) if m else 1.0)
    return factors


def recurrence(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors of the two former Legendre functions of an m in the next one, by degree and m."""
    up, down = np.zeros((order + 1, order + 1)), np.zeros((order + 1, order + 1))
    for degree in range(1, order + 1):
        for m in range(degree):
            up[degree, m] = (2 * degree - 1) / (degree - m)
            down[degree, m] = (degree + m - 1) / (degree - m)
    return up, down


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
    for cell in cells:
        box = boxes[cell]
        c = scaled[cell]
        for z in range(max(lo, box[0]), min(hi, box[1])):
            dz = z * size[0] - centres[cell, 0]
            for y in range(box[2], box[3]):
                dy = y * size[1] - centres[cell, 1]
                for x in range(box[4], box[5]):
                    if first and labels[z, y, x] > 0:
                        continue
                    dx = x * size[2] - centres[cell, 2]
                    distance = math.sqrt(dot(dz, dy, dx, dz, dy, dx))
                    if distance > reach[cell]:
                        continue
                    inverse = 1.0 / distance if distance > 0.0 else 0.0
                    radius = radius_along(
                        c, order, up, down, dz * inverse, dy * inverse, dx * inverse
                    )
                    ratio = harmonic_ratio(distance, radius, limit)
                    if ratio < 0.0:
                        continue
                    if first:
                        labels[z, y, x] = cell + 1
                    elif ratio < depth[z - lo, y, x]:
                        depth[z - lo, y, x] = ratio
                        labels[z, y, x] = cell + 1


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
    for cell in range(lo, hi):
        box = boxes[cell]
        c = scaled[cell]
        at = starts[cell] - 1
        for z in range(box[0], box[1]):
            dz = z - centres[cell, 0]
            for y in range(box[2], box[3]):
                dy = y - centres[cell, 1]
                for x in range(box[4], box[5]):
                    dx = x - centres[cell, 2]
                    at += 1
                    distance = math.sqrt(dot(dz, dy, dx, dz, dy, dx))
                    if distance > reach[cell]:
                        continue
                    inverse = 1.0 / distance if distance > 0.0 else 0.0
                    radius = radius_along(
                        c, order, up, down, dz * inverse, dy * inverse, dx * inverse
                    )
                    if harmonic_ratio(distance, radius, 1.0) >= 0.0:
                        voxels[at] = 1
                        volumes[cell] += 1


@inlined
def dot(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    """Inner product of two vectors (a, b, c) and (d, e, f)."""
    return times(a, d) + times(b, e) + times(c, f)


# Functions of single voxels take numbers: with arrays for arguments the CPU took twice as long.
@inlined
def harmonic_ratio(distance: Any, radius: Any, limit: Any) -> Any:
    """Distance from the centre, as a part of the radius there; negative beyond `limit` of it."""
    ratio = np.float32(-1.0)
    if distance == 0.0:
        ratio = np.float32(0.0)
    elif distance <= limit * radius:
        ratio = np.float32(distance / radius)
    return ratio


@compiled
def radius_along(c: Any, order: int, up: Any, down: Any, z: Any, y: Any, x: Any) -> Any:
    """Sum of harmonics in the direction of a unit vector; `c` contains their norms."""
    radius = 0.0
    cosine, sine = 1.0, 0.0  # of m times the azimuth, times the sine of the polar angle to the m
    start = 1.0
    for m in range(order + 1):
        before, current = 0.0, start
        plus, minus = 0.0, 0.0
        for degree in range(m, order + 1):
            if degree > m:
                following = times(up[degree, m] * z, current) - times(down[degree, m], before)
                before, current = current, following
            middle = degree * (degree + 1)
            plus += times(c[middle + m], current)
            minus += times(c[middle - m], current)
        radius += times(plus, cosine) + (times(minus, sine) if m > 0 else 0.0)
        turned = times(cosine, x) - times(sine, y)
        cosine, sine = turned, times(sine, x) + times(cosine, y)
        start *= 2 * m + 1
    return radius


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


@compiled
def tetrahedron(
    radii: Any,
    directions: Any,
    face: Any,
    limit: Any,
    size: Any,
    centre: Any,
    box: Any,
    corners: Any,
    inverse: Any,
    part: Any,
) -> None:
    """What lies between a centre and a face: its corners, inverted, and its part of a box.

    Nothing of the box where it has no volume.
    """
    for corner in range(3):
        for axis in range(3):
            corners[corner, axis] = limit * radii[face[corner]] * directions[face[corner], axis]
    part[:] = 0
    if not invert(corners, inverse):
        return
    for axis in range(3):
        a, b, c = corners[0, axis], corners[1, axis], corners[2, axis]
        low = centre[axis] + min(0.0, a, b, c)
        high = centre[axis] + max(0.0, a, b, c)
        part[2 * axis] = max(box[2 * axis], math.ceil(low / size[axis]))
        part[2 * axis + 1] = min(box[2 * axis + 1], math.floor(high / size[axis]) + 1)


@inlined
def tetrahedron_ratio(a: Any, b: Any, c: Any) -> Any:
    """Distance from the centre, as a part of that to the face; negative outside.

    The voxel is the sum of the corners, each times its own part.
    """
    total = a + b + c
    ratio = np.float32(-1.0)
    if min(a, b, c) >= -_ROUNDING and total <= 1.0:
        ratio = np.float32(total) if total > 0.0 else np.float32(0.0)
    return ratio


@compiled
def invert(m: Any, out: Any) -> Any:
    """Invert a matrix of three rows; return whether it can be."""
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        for p in range(3):
            q, r = (p + 1) % 3, (p + 2) % 3
            out[p, i] = m[j, q] * m[k, r] - m[j, r] * m[k, q]
    determinant = m[0, 0] * out[0, 0] + m[0, 1] * out[1, 0] + m[0, 2] * out[2, 0]
    if determinant == 0.0:
        return False
    for i in range(3):
        for p in range(3):
            out[i, p] /= determinant
    return True
