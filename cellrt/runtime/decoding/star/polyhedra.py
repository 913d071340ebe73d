"""Of shapes by their radii along rays, polyhedra, that overlap the one with the best score stays.

How much two share is counted in voxels, as in StarDist. Spheres inside and around them decide most
pairs before.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.decoding.star.neighbours import common_box, later_neighbours, sort_into_grid
from cellrt.runtime.decoding.star.tetrahedra import faces_between, invert
from cellrt.threads import in_threads

_TINY = 1e-10
# Shapes among which who stays is settled, and how many are asked at most which of them are left.
_AT_ONCE, _AHEAD = 512, 1 << 16
# Voxels that are looked at around a shape that stays: what threads are worth.
_VOXELS_AROUND = 1 << 15


def suppress_rays(
    places: NDArray[np.integer[Any]],
    shift: float,
    radii: NDArray[np.float32],
    directions: NDArray[np.float64],
    most_overlap: float,
    rows: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.intp]:
    """Which of some polyhedra stay.

    Parameters
    ----------
    places : ndarray of int, shape (shapes, 3)
        Voxels (z, y, x); the highest score first.
    shift : float
        From these to the centres of the shapes, along every axis, 0 to 1.
    radii : ndarray of float32, shape (shapes, directions)
        In voxels, above 0.
    directions : ndarray, shape (directions, 3)
        Unit vectors (z, y, x), all around.
    most_overlap : float
        Share of the smaller one's volume.
    rows : ndarray of int, shape (shapes,), optional
        Where the radii of each shape are, which may be too many to be sorted in a copy.
    """
    if not len(places):
        return np.zeros(0, np.intp)
    faces = faces_between(directions)
    inverses = np.empty((len(faces), 3, 3))
    volumes = np.abs(np.linalg.det(directions[faces])) / 6
    for face, inverse in zip(faces, inverses, strict=True):
        invert(np.ascontiguousarray(directions[face]), inverse)
    reach = math.ceil(float(radii.max())) + 1
    towards = np.zeros((2 * reach + 1,) * 3, np.int16)
    _face_table(inverses, shift, towards)
    kept = np.zeros(len(places), np.bool_)
    centres = np.ascontiguousarray(places, np.float64)
    measures = np.empty((len(places), 3))
    rows = np.arange(len(places)) if rows is None else np.asarray(rows, np.int64)
    boxes = np.empty((len(places), 6), np.int64)
    whole = np.ascontiguousarray(places, np.int64)
    shapes = (radii, rows, directions, faces, volumes, whole, shift, measures, boxes)
    in_threads(len(places), partial(_measure_polyhedra, *shapes), voxels=len(places) * len(faces))
    grid = sort_into_grid(centres, max(2.0, float(np.median(measures[:, 1]))))
    farthest = float(measures[:, 1].max())
    gone = np.zeros(len(places), np.bool_)
    given = (
        whole, centres, radii, rows, faces, inverses, towards, shift, measures, boxes, most_overlap,
    )  # fmt: skip
    first = 0
    while first < len(places):
        # Who stays is settled for the best ones that are left, of which few are neighbours; then
        # all that stay clear what is around them at the same time.
        best = first + np.flatnonzero(~gone[first : first + _AHEAD])[:_AT_ONCE]
        first = int(best[-1]) + 1 if len(best) == _AT_ONCE else min(first + _AHEAD, len(places))
        _settle(best, *given, gone)
        stay = best[~gone[best]]
        kept[stay] = True
        clear = partial(_clear_around, stay, *given, grid, farthest, gone)
        in_threads(len(stay), clear, voxels=len(stay) * _VOXELS_AROUND)
    return np.flatnonzero(kept)


@compiled
def _lens(a: Any, b: Any, apart: Any) -> Any:
    """Volume that two spheres share."""
    if apart >= a + b:
        return 0.0
    if apart <= abs(a - b):
        return 4.0 / 3.0 * math.pi * min(a, b) ** 3
    square = apart * apart + 2.0 * apart * (a + b) - 3.0 * (a - b) * (a - b)
    return math.pi * (a + b - apart) ** 2 * square / (12.0 * apart)


@compiled
def _distance(a: Any, b: Any) -> Any:
    z, y, x = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return math.sqrt(z * z + y * y + x * x)


@compiled
def _face_table(inverses: Any, shift: Any, towards: Any) -> None:
    """Which face each voxel around a centre lies behind, as seen from there."""
    edge = towards.shape[0]
    reach = edge // 2
    face = 0
    for z in range(edge):
        for y in range(edge):
            for x in range(edge):
                dz, dy, dx = z - reach - shift, y - reach - shift, x - reach - shift
                if _behind(inverses[face], dz, dy, dx) < -1e-9:
                    best = -np.inf
                    for other in range(inverses.shape[0]):
                        depth = _behind(inverses[other], dz, dy, dx)
                        if depth > best:
                            best, face = depth, other
                            if depth >= 0.0:
                                break
                towards[z, y, x] = face


@compiled
def _behind(m: Any, z: Any, y: Any, x: Any) -> Any:
    """Smallest of the parts of a face's corners that a point is the sum of."""
    a = z * m[0, 0] + y * m[1, 0] + x * m[2, 0]
    b = z * m[0, 1] + y * m[1, 1] + x * m[2, 1]
    c = z * m[0, 2] + y * m[1, 2] + x * m[2, 2]
    return min(a, b, c)


@compiled
def _measure_polyhedra(
    all_radii: Any,
    rows: Any,
    directions: Any,
    faces: Any,
    volumes: Any,
    places: Any,
    shift: Any,
    measures: Any,
    boxes: Any,
    lo: int,
    hi: int,
) -> None:
    """Radius of a sphere inside, of one around, and volume; and the box of each."""
    for i in range(lo, hi):
        radii = all_radii[rows[i]]
        volume, inner, outer = 0.0, np.inf, 0.0
        for axis in range(3):
            low, high = 0.0, 0.0
            for ray in range(radii.size):
                end = radii[ray] * directions[ray, axis]
                low, high = min(low, end), max(high, end)
            boxes[i, 2 * axis] = places[i, axis] + math.ceil(shift + low)
            boxes[i, 2 * axis + 1] = places[i, axis] + math.floor(shift + high) + 1
        for ray in range(radii.size):
            outer = max(outer, radii[ray])
        for face in range(faces.shape[0]):
            first, second, third = faces[face, 0], faces[face, 1], faces[face, 2]
            p, q, r = radii[first], radii[second], radii[third]
            z, y, x = (
                p * directions[first, 0], p * directions[first, 1], p * directions[first, 2]
            )  # fmt: skip
            az, ay = q * directions[second, 0] - z, q * directions[second, 1] - y
            bz, by = r * directions[third, 0] - z, r * directions[third, 1] - y
            ax, bx = q * directions[second, 2] - x, r * directions[third, 2] - x
            cz, cy, cx = ay * bx - ax * by, ax * bz - az * bx, az * by - ay * bz
            part = volumes[face] * p * q * r
            volume += part
            # Distance of the face's plane from the centre: its volume over its area.
            square = cz * cz + cy * cy + cx * cx
            if square > 0.0:
                inner = min(inner, 6.0 * part / math.sqrt(square))
        measures[i, 0], measures[i, 1], measures[i, 2] = inner, outer, volume


@compiled
def _settle(
    best: Any,
    places: Any,
    centres: Any,
    radii: Any,
    rows: Any,
    faces: Any,
    inverses: Any,
    towards: Any,
    shift: Any,
    measures: Any,
    boxes: Any,
    most: Any,
    gone: Any,
) -> None:
    """Let each of some shapes, the best first, clear the later ones of them."""
    for k in range(best.size):
        if not gone[best[k]]:
            _clear(
                best[k], best[k + 1 :], places, centres, radii, rows, faces, inverses, towards,
                shift, measures, boxes, most, gone,
            )  # fmt: skip


@compiled
def _clear_around(
    stay: Any,
    places: Any,
    centres: Any,
    radii: Any,
    rows: Any,
    faces: Any,
    inverses: Any,
    towards: Any,
    shift: Any,
    measures: Any,
    boxes: Any,
    most: Any,
    grid: Any,
    farthest: float,
    gone: Any,
    lo: int,
    hi: int,
) -> None:
    """Let each of the shapes that stay clear all later ones around it."""
    near = np.empty(places.shape[0], np.int64)
    for k in range(lo, hi):
        i = stay[k]
        count = later_neighbours(grid, i, centres[i], measures[i, 1] + farthest, near)
        _clear(
            i, near[:count], places, centres, radii, rows, faces, inverses, towards, shift,
            measures, boxes, most, gone,
        )  # fmt: skip


@compiled
def _clear(
    i: Any,
    near: Any,
    places: Any,
    centres: Any,
    radii: Any,
    rows: Any,
    faces: Any,
    inverses: Any,
    towards: Any,
    shift: Any,
    measures: Any,
    boxes: Any,
    most: Any,
    gone: Any,
) -> None:
    """Mark those of some shapes that share too much with shape `i`."""
    reach = towards.shape[0] // 2
    drawn = np.empty(0, np.uint8)
    part = np.empty((3, 2), np.int64)
    planes = np.empty((faces.shape[0], 3))
    box = boxes[i]
    for k in range(near.size):
        j = near[k]
        if gone[j]:
            continue
        apart = _distance(centres[i], centres[j])
        limit = most * (min(measures[i, 2], measures[j, 2]) + _TINY)
        if _lens(measures[i, 0], measures[j, 0], apart) > 1.1 * limit + 8.0:
            gone[j] = True
            continue
        if 1.1 * _lens(measures[i, 1], measures[j, 1], apart) + 8.0 < limit:
            continue
        if common_box(box, boxes[j], part) <= limit:
            continue
        if drawn.size == 0:
            drawn = np.empty((box[1] - box[0]) * (box[3] - box[2]) * (box[5] - box[4]), np.uint8)
            _planes_of(radii, rows[i], faces, inverses, planes)
            _draw(places[i], planes, towards, shift, reach, box, drawn)
        _planes_of(radii, rows[j], faces, inverses, planes)
        if _shared(places[j], planes, towards, shift, reach, part, box, drawn, limit):
            gone[j] = True  # and never False, as other shapes are compared at the same time


@compiled
def _planes_of(radii: Any, row: Any, faces: Any, inverses: Any, planes: Any) -> None:
    """What each face's plane multiplies (z, y, x) with, of which the sum is 1 on the plane."""
    inverse = np.empty(radii.shape[1])
    for ray in range(inverse.size):
        inverse[ray] = 1.0 / radii[row, ray]
    for face in range(faces.shape[0]):
        a, b, c = inverse[faces[face, 0]], inverse[faces[face, 1]], inverse[faces[face, 2]]
        for axis in range(3):
            m = inverses[face, axis, 0] * a + inverses[face, axis, 1] * b
            planes[face, axis] = m + inverses[face, axis, 2] * c


@compiled
def _draw(
    place: Any,
    planes: Any,
    towards: Any,
    shift: Any,
    reach: int,
    box: Any,
    drawn: Any,
) -> None:
    at = 0
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            for x in range(box[4], box[5]):
                dz, dy, dx = z - place[0], y - place[1], x - place[2]
                face = towards[dz + reach, dy + reach, dx + reach]
                a = (dz - shift) * planes[face, 0] + (dy - shift) * planes[face, 1]
                drawn[at] = a + (dx - shift) * planes[face, 2] <= 1.0
                at += 1


@compiled
def _shared(
    place: Any,
    planes: Any,
    towards: Any,
    shift: Any,
    reach: int,
    part: Any,
    box: Any,
    drawn: Any,
    limit: Any,
) -> Any:
    """Whether a polyhedron has more voxels than a limit in common with what is drawn."""
    ny, nx = box[3] - box[2], box[5] - box[4]
    edge = 2 * reach + 1
    seen = towards.reshape(-1)
    layers = part[0, 1] - part[0, 0]
    area = (part[1, 1] - part[1, 0]) * (part[2, 1] - part[2, 0])
    count = 0
    # From the middle outwards: most shapes that share enough do so there.
    for layer in range(layers):
        step = (layer + 1) // 2
        z = (part[0, 0] + part[0, 1]) // 2 + (step if layer % 2 == 0 else -step)
        dz = z - place[0]
        for y in range(part[1, 0], part[1, 1]):
            dy = y - place[1]
            row = ((z - box[0]) * ny + y - box[2]) * nx - box[4]
            ray = ((dz + reach) * edge + dy + reach) * edge + reach - place[2]
            for x in range(part[2, 0], part[2, 1]):
                if drawn[row + x] == 0:
                    continue
                face = seen[ray + x]
                a = (dz - shift) * planes[face, 0] + (dy - shift) * planes[face, 1]
                count += a + (x - place[2] - shift) * planes[face, 2] <= 1.0
        if count > limit:
            return True
        if count + (layers - layer - 1) * area <= limit:
            return False
    return False
