"""How deep voxels are in a polyhedron: of all its faces few can lie in the direction of a voxel.

The directions are sorted into squares on the faces of a cube, and for every square it is known
once and for all polyhedra with the same rays which faces are seen through it: mostly one or two.
The result is that of a comparison with all faces. For few voxels that is faster; whole
polyhedra are drawn face by face, see `rasterise`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.decoding.rounding import dot
from cellrt.runtime.decoding.star.tetrahedra import faces_between, tetrahedron, tetrahedron_ratio

# Squares along an edge of the cube.
_EDGE = 24
# A face is of a square as well if it ends so far beside it, in edges of the cube: far more than
# rounding moves a voxel that is not as near to the centre as the second number times the reach.
_BESIDE, _NEAR = 1e-3, 1e-4


class Faces(NamedTuple):
    """Faces of polyhedra with the same rays.

    Attributes
    ----------
    rays : ndarray of float64, shape (rays, 3)
        Unit vectors (z, y, x).
    corners : ndarray of int64, shape (faces, 3)
        Which rays end at the corners of each.
    starts : ndarray of int64, shape (squares + 1,)
        Where the faces of each square begin in `seen`; a last square has all of them.
    seen : ndarray of int64
        Faces that are seen through each square, in their order.
    """

    rays: NDArray[np.float64]
    corners: NDArray[np.int64]
    starts: NDArray[np.int64]
    seen: NDArray[np.int64]


def faces_of(rays: NDArray[np.float64]) -> Faces:
    """Faces between rays, and where each is seen."""
    rays = np.ascontiguousarray(rays, np.float64)
    return _faces_of(rays.tobytes())


@functools.lru_cache(4)
def _faces_of(content: bytes) -> Faces:
    rays = np.frombuffer(content).reshape(-1, 3)
    corners = faces_between(rays)
    # A direction is the sum of a face's corners, each times its part: none is negative behind it.
    parts = np.concatenate(np.linalg.inv(rays[corners]), axis=1)
    ends = np.linspace(-1, 1, _EDGE + 1)
    listed: list[NDArray[np.intp]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            points = np.empty((_EDGE + 1, _EDGE + 1, 3))
            points[..., axis] = sign
            points[..., (axis + 1) % 3], points[..., (axis + 2) % 3] = np.meshgrid(
                ends, ends, indexing="ij"
            )
            within = points @ parts > -_BESIDE
            # Where one part is negative at all four corners of a square it is so in between.
            square = within[1:, 1:] | within[1:, :-1] | within[:-1, 1:] | within[:-1, :-1]
            seen = square.reshape(_EDGE * _EDGE, len(corners), 3).all(axis=2)
            listed.extend(map(np.flatnonzero, np.asarray(seen)))
    listed.append(np.arange(len(corners)))
    starts = np.cumsum([0, *map(len, listed)])
    return Faces(rays, corners, starts, np.concatenate(listed))


class Tetrahedra(NamedTuple):
    """Those of one polyhedron that were needed so far, see `tetrahedra.tetrahedron`.

    Attributes
    ----------
    owner : ndarray of int64, shape (faces,)
        Of which polyhedron each is.
    inverses : ndarray of float64, shape (faces, 3, 3)
    parts : ndarray of int64, shape (faces, 6)
    corners : ndarray of float64, shape (3, 3)
        For a while.
    """

    owner: NDArray[np.int64]
    inverses: NDArray[np.float64]
    parts: NDArray[np.int64]
    corners: NDArray[np.float64]


def no_tetrahedra(faces: Faces) -> Tetrahedra:
    """Room for those of one polyhedron after the other."""
    count = len(faces.corners)
    return Tetrahedra(
        np.full(count, -1),
        np.empty((count, 3, 3)),
        np.empty((count, 6), np.int64),
        np.empty((3, 3)),
    )


@compiled
def polyhedron_ratios(
    radii: Any,
    faces: Any,
    known: Any,
    cell: int,
    reach: Any,
    limit: Any,
    size: Any,
    centre: Any,
    box: Any,
    away: Any,
    places: Any,
    count: int,
    ratios: Any,
) -> None:
    """How deep some voxels are in a polyhedron, the least that `tetrahedron_ratio` gives.

    Parameters
    ----------
    radii : (rays,) array
    faces : Faces
    known : Tetrahedra
        Of this polyhedron, or of another one.
    cell : int
        A number of its own.
    reach : float
        The longest of the radii, times `limit`.
    limit, size, centre, box
        As for `tetrahedron`.
    away : (3, n) float64 array
        (z, y, x) from the centre.
    places : (3, n) int64 array
        The voxels.
    count : int
        Of the voxels, which are the first ones.
    ratios : (n,) float32 array
        The result, negative outside.
    """
    # Outside of the loop, as the use of an array is counted.
    starts, seen, owner, p, m = faces.starts, faces.seen, known.owner, known.parts, known.inverses
    for k in range(count):
        z, y, x = away[0, k], away[1, k], away[2, k]
        square = _square(z, y, x, reach * _NEAR)
        a, b, c = places[0, k], places[1, k], places[2, k]
        least = np.float32(-1.0)
        for at in range(starts[square], starts[square + 1]):
            face = seen[at]
            if owner[face] != cell:
                owner[face] = cell
                tetrahedron(
                    radii, faces.rays, faces.corners[face], limit, size, centre, box,
                    known.corners, m[face], p[face],
                )  # fmt: skip
            if a < p[face, 0] or a >= p[face, 1] or b < p[face, 2] or b >= p[face, 3]:
                continue
            if c < p[face, 4] or c >= p[face, 5]:
                continue
            first = dot(z, y, x, m[face, 0, 0], m[face, 1, 0], m[face, 2, 0])
            second = dot(z, y, x, m[face, 0, 1], m[face, 1, 1], m[face, 2, 1])
            third = dot(z, y, x, m[face, 0, 2], m[face, 1, 2], m[face, 2, 2])
            ratio = tetrahedron_ratio(first, second, third)
            if ratio >= 0.0 and (least < 0.0 or ratio < least):
                least = ratio
        ratios[k] = least


@compiled
def _square(z: Any, y: Any, x: Any, near: Any) -> Any:
    """Through which square a place is seen from the centre; the last one for what is near."""
    largest = max(abs(z), abs(y), abs(x))
    if largest <= near:
        return 6 * _EDGE * _EDGE
    if abs(z) == largest:
        side, u, v = (1 if z > 0.0 else 0), y, x
    elif abs(y) == largest:
        side, u, v = (3 if y > 0.0 else 2), x, z
    else:
        side, u, v = (5 if x > 0.0 else 4), z, y
    scale = 0.5 * _EDGE / largest
    row = min(np.int64(u * scale + 0.5 * _EDGE), _EDGE - 1)
    column = min(np.int64(v * scale + 0.5 * _EDGE), _EDGE - 1)
    return (side * _EDGE + row) * _EDGE + column
