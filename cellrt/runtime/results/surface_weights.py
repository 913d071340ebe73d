"""Weights of the discrete Crofton formula for any voxel spacing.

A surface is measured by how often straight lines cross it. Lines run along the 13 directions that
join a voxel to its 26 neighbours; each crossing counts for the share of all directions that are
nearest to its line. Unlike counting voxel faces (which overestimates a sphere by half) the
estimate has no bias that stays when the object grows.

References
----------
Lehmann G., Legland D., "Efficient N-Dimensional surface estimation using Crofton formula and
run-length encoding", The Insight Journal, 2012.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

DIRECTIONS: tuple[tuple[int, int, int], ...] = tuple(
    (z, y, x) for z, y, x in itertools.product((-1, 0, 1), repeat=3) if (z, y, x) > (0, 0, 0)
)
"""One of each pair of opposite neighbours, as (z, y, x) steps."""
_POINTS = 20_000


def surface_weights(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Surface per boundary crossing along each of `DIRECTIONS`.

    Parameters
    ----------
    spacing : (z, y, x)
        Distance between voxels, any unit.

    Returns
    -------
    ndarray of float64, shape (13,)
        In spacing's unit squared; the surface of an object is the sum over directions of the
        weight times the number of neighbouring voxel pairs of which one is in the object.

    Notes
    -----
    Lines in direction u of length d between voxels have one line per cross-section V / d, V the
    voxel volume, so crossings x V / d estimates the integral of \\|n·u\\| over the surface, and the
    mean of \\|n·u\\| over all directions u is 1/2.
    """
    vectors = np.array(DIRECTIONS, dtype=np.float64) * spacing
    lengths = np.linalg.norm(vectors, axis=1)
    shares = _share_of_sphere(vectors / lengths[:, None])
    weights: NDArray[np.float64] = 2.0 * shares * math.prod(spacing) / lengths
    return weights


def perimeter_weights(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Length per boundary crossing along each of `DIRECTIONS` within one slice, 0 out of it.

    The same in two dimensions, where the mean of \\|n·u\\| is 2/π.
    """
    vectors = np.array(DIRECTIONS, dtype=np.float64) * spacing
    in_plane = np.array([d[0] == 0 for d in DIRECTIONS])
    weights = np.zeros(len(DIRECTIONS))
    lengths = np.linalg.norm(vectors[in_plane], axis=1)
    angles = np.arctan2(vectors[in_plane, 1], vectors[in_plane, 2]) % math.pi
    order = np.argsort(angles)
    turned = np.concatenate(
        [angles[order][-1:] - math.pi, angles[order], angles[order][:1] + math.pi]
    )
    shares = np.empty(len(angles))
    shares[order] = (turned[2:] - turned[:-2]) / (2.0 * math.pi)
    weights[in_plane] = math.pi / 2.0 * shares * spacing[1] * spacing[2] / lengths
    return weights


def _share_of_sphere(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the unit sphere that is nearest to the axis of each of `DIRECTIONS`.

    Counted over points in one octant, because the axes mirror each other: exact within 1e-4, in a
    few milliseconds. SciPy's spherical Voronoi cells are exact and take 0.1 s to import.
    """
    index = np.arange(_POINTS) + 0.5
    height = 1.0 - index / _POINTS
    around = index * (math.pi * (3.0 - math.sqrt(5.0)))
    flat = np.sqrt(1.0 - height**2)
    octant = np.abs(np.stack([height, flat * np.sin(around), flat * np.cos(around)]))
    # Every order of the coordinates, so that the axes of a cube get equal shares to the last bit.
    points = np.concatenate([octant[list(order)] for order in itertools.permutations(range(3))], 1)
    _, first, kind, count = np.unique(
        np.abs(DIRECTIONS), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    nearest = np.argmax(np.abs(units[first]) @ points, axis=0)
    shares = np.bincount(nearest, minlength=len(first)) / nearest.size
    of_each: NDArray[np.float64] = (shares / count)[kind.ravel()]
    return of_each
