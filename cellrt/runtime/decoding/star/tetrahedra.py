"""Polyhedra between the ends of rays, taken apart into tetrahedra: for the CPU and for GPUs."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.star.directions import directions

# A voxel on an edge between two faces is of both rather than of none.
_ROUNDING = 1e-9


def faces_between(rays: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles between neighbouring directions: the indices of three each."""
    from scipy.spatial import ConvexHull

    return np.asarray(ConvexHull(rays).simplices.astype(np.int64))


def nearest_faces(
    radii: NDArray[np.float64], rays: NDArray[np.float64], faces: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Distance from the centre to the plane of the nearest face: a ball's radius that lies inside.

    Parameters
    ----------
    radii : ndarray, shape (cells, rays)
    rays : ndarray, shape (rays, 3)
    faces : ndarray, shape (faces, 3)
        As from `faces_between`.
    """
    nearest = np.zeros(len(radii))
    _nearest_faces(radii, rays, faces, nearest)
    return nearest


@compiled
def _nearest_faces(radii: Any, rays: Any, faces: Any, nearest: Any) -> None:
    for cell in range(radii.shape[0]):
        least = np.inf
        for face in range(faces.shape[0]):
            i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
            p, q, r = radii[cell, i], radii[cell, j], radii[cell, k]
            az, ay, ax = p * rays[i, 0], p * rays[i, 1], p * rays[i, 2]
            bz, by, bx = q * rays[j, 0] - az, q * rays[j, 1] - ay, q * rays[j, 2] - ax
            cz, cy, cx = r * rays[k, 0] - az, r * rays[k, 1] - ay, r * rays[k, 2] - ax
            z, y, x = by * cx - bx * cy, bx * cz - bz * cx, bz * cy - by * cz
            area = math.sqrt(z * z + y * y + x * x)
            # A face without area is a line between others.
            if area > 0.0:
                least = min(least, abs(az * z + ay * y + ax * x) / area)
        if least < np.inf:
            nearest[cell] = least


def polyhedron_half_widths(
    radii: NDArray[np.floating], rays: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Half of the shortest line through each centre: of a ray, and of that which is most opposite.

    Parameters
    ----------
    radii : ndarray, shape (cells, rays)
    rays : ndarray, shape (rays, 3)
        Unit vectors.
    """
    opposite = (rays @ rays.T).argmin(axis=1)
    shortest = np.full(len(radii), np.inf)
    for ray, other in enumerate(opposite):
        np.minimum(shortest, (radii[:, ray] + radii[:, other]) / 2, out=shortest)
    return shortest


@functools.cache
def _polyhedron_growth(count: int) -> float:
    from scipy.spatial import ConvexHull

    return float((4 / 3 * np.pi / ConvexHull(directions(count)).volume) ** (1 / 3))


def as_large_as_cells(radii: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengthen rays so that the polyhedron between their ends is as large as the cell.

    Corners on the border of a round cell leave all else of the polyhedron inside of it: between 36
    rays of equal length lies 0.85 of the ball's volume.

    Parameters
    ----------
    radii : ndarray, shape (cells, number of directions)
        Along the shipped directions of that number.
    """
    if not len(radii):
        return radii
    return np.asarray(radii * np.float32(_polyhedron_growth(radii.shape[1])))


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


# Numbers and no array: with arrays the CPU took twice as long.
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
