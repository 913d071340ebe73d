"""Directions along which radii are measured, spread over the sphere by electrostatic repulsion.

Those that are in use are in files beside this module, which `write_directions` made: their last
digits would differ between machines, and what was trained along some must be decoded along them.

References
----------
Eschweiler et al., "Spherical harmonics for shape-constrained 3D cell segmentation", 2020 (sec. 2).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.errors import UsageError
from cellrt.threads import in_threads

COUNT = 5000
"""Directions along which cells are encoded, as in the HarmonicNet paper."""
FEWER = 500
"""Directions that do where cells are encoded again and again, as training does."""
RAYS = (36, 64, 96)
"""Numbers of directions that a star-convex network can predict radii along."""

_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))
_MOST_STEPS = 2000


@functools.cache
def directions(count: int) -> NDArray[np.float64]:
    """The shipped directions of some number.

    Parameters
    ----------
    count : int
        `COUNT`, `FEWER` or one of `RAYS`.

    Returns
    -------
    ndarray of float64, shape (count, 3)
        Unit vectors (z, y, x), read-only. The angle from one to its nearest neighbour is the same
        within a factor of 1.15 for all.

    Raises
    ------
    UsageError
        There are no directions of that number.
    """
    if count not in (*RAYS, FEWER, COUNT):
        known = ", ".join(map(str, (*RAYS, FEWER)))
        raise UsageError(f"there are no {count} directions; choose one of {known} or {COUNT}")
    stored = np.load(_file(count)).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    stored.setflags(write=False)
    return np.asarray(stored)


def shipped_directions() -> NDArray[np.float64]:
    """The 5000 directions along which cells are encoded, see `directions`."""
    return directions(COUNT)


def fibonacci_lattice(count: int) -> NDArray[np.float64]:
    """Unit vectors (z, y, x) on a spiral from pole to pole, shape (count, 3).

    Nearly even, and the rays of StarDist.
    """
    number = np.arange(count)
    z = 1.0 - (2.0 * number + 1.0) / count
    radius = np.sqrt(1.0 - z * z)
    angle = _GOLDEN_ANGLE * number
    return np.stack([z, radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def repelled(points: NDArray[np.float64], doublings: int = 0) -> NDArray[np.float64]:
    """Let points on the sphere push each other apart until they rest.

    They come to the next minimum of the sum of 1 / distance**n over all pairs.

    Parameters
    ----------
    points : ndarray, shape (count, 3)
        Unit vectors. The time grows with the square of their number, to minutes for 5000.
    doublings : int
        n is 2**doublings: 1 for electric charges, more for a push of shorter range.

    Returns
    -------
    ndarray of float64, shape (count, 3)
        Unit vectors.
    """
    from scipy.optimize import minimize

    count = len(points)

    def energy(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        places = flat.reshape(-1, 3)
        length = np.linalg.norm(places, axis=1, keepdims=True)
        unit = np.ascontiguousarray(places / length)
        slope = np.zeros_like(unit)
        parts = in_threads(
            count,
            lambda lo, hi: float(_repel(unit, doublings, slope, lo, hi)),
            voxels=count * count,
        )
        # A point moves along the sphere only.
        slope -= (slope * unit).sum(axis=1, keepdims=True) * unit
        return sum(parts), (slope / length).ravel()

    found = minimize(
        energy,
        points.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MOST_STEPS, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-5 * count},
    ).x.reshape(-1, 3)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def write_directions(count: int) -> None:
    """Make a shipped file anew; it changes what is measured along them, in the last digits.

    Charges rest in the first of many minima, with dense places where their lattice has to bend. A
    push of shorter range moves those apart, and the last word is again that of the charges.
    """
    points = fibonacci_lattice(count)
    for doublings in (0, 3, 0):
        points = repelled(points, doublings)
    np.save(_file(count), points.astype(np.float32))


def _file(count: int) -> Path:
    return Path(__file__).with_name(f"directions_{count}.npy")


@compiled
def _repel(points: Any, doublings: int, slope: Any, lo: int, hi: int) -> Any:
    """Add the gradient of the energy for some points; return their share of the energy."""
    power = 1 << doublings
    energy = 0.0
    for i in range(lo, hi):
        z, y, x = points[i, 0], points[i, 1], points[i, 2]
        gz, gy, gx = 0.0, 0.0, 0.0
        for j in range(points.shape[0]):
            dz, dy, dx = points[j, 0] - z, points[j, 1] - y, points[j, 2] - x
            square = dz * dz + dy * dy + dx * dx
            if square > 0.0:
                pair = 1.0 / np.sqrt(square)
                for _ in range(doublings):
                    pair *= pair
                energy += 0.5 * pair
                push = power * pair / square
                gz += push * dz
                gy += push * dy
                gx += push * dx
        slope[i, 0] += gz
        slope[i, 1] += gy
        slope[i, 2] += gx
    return energy
