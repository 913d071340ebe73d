"""Real spherical harmonics: radii along directions become coefficients, and coefficients power."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.runtime.decoding.star.directions import COUNT, FEWER, directions

HIGHEST_ORDER = 11

SMOOTHING = 0.006
"""Weight of l²(l+1)², by which coefficients of bumps finer than the voxels show are held down.

Beside `COUNT` directions; beside fewer it weighs as much less."""

# Most cells need four to seven steps. The tolerance is that of the square of the residual.
_MOST_STEPS = 12
_TOLERANCE = 1e-8
_TINY = np.float32(1e-30)
# Cells whose radii are known at once.
_CHUNK = 1024


def check_order(order: int) -> None:
    """Refuse an order that is not from 1 to 11.

    Raises
    ------
    UsageError
    """
    if not 1 <= order <= HIGHEST_ORDER:
        raise UsageError(
            f"--order is {order}; expected 1 to {HIGHEST_ORDER}: 5 describes most cells, with 36 "
            "numbers each"
        )


def coefficient_count(order: int) -> int:
    """Harmonics up to a degree: (order + 1)²."""
    return (order + 1) ** 2


def degrees(order: int) -> NDArray[np.int64]:
    """Degree l of each coefficient, shape ((order + 1)²,)."""
    degree = np.arange(order + 1)
    return np.repeat(degree, 2 * degree + 1)


def coefficient_names(order: int) -> tuple[str, ...]:
    """What coefficients are called, in their order: ``c_0_0``, ``c_1_-1``, ``c_1_0`` ..."""
    return tuple(f"c_{n}_{m}" for n in range(order + 1) for m in range(-n, n + 1))


def fit_coefficients(radii: NDArray[np.float32], order: int) -> NDArray[np.float32]:
    """Coefficients of the shapes with some radii, by weighted, regularised least squares.

    A direction weighs as much as the surface that lies there, by the square of its radius: it is
    the volume on the wrong side of the border that is small. With equal weights the far ends of
    long cells would count for as little as the angle under which they are seen.

    Parameters
    ----------
    radii : ndarray of float32, shape (cells, number of directions)
        Along the shipped directions of that number.
    order : int
        Highest degree.

    Returns
    -------
    ndarray of float32, shape (cells, (order + 1)²)
    """
    count = radii.shape[1]
    harmonics = _harmonics(order, count)
    degree = degrees(order).astype(np.float32)
    smoothing = np.float32(SMOOTHING * count / COUNT) * (degree * (degree + 1)) ** 2
    weights = radii * radii
    weights /= np.maximum(weights.mean(axis=1, keepdims=True), _TINY)
    # The harmonics are as good as orthogonal on these directions, which leaves the weights.
    nearly = (1 / (len(harmonics) / (4 * np.pi) + smoothing)).astype(np.float32)

    def rows(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray((first * second).sum(axis=1, keepdims=True))

    # Conjugate gradients: a matrix for every cell would take longer than all radii.
    coefficients = np.zeros((len(radii), len(degree)), np.float32)
    residual = (weights * radii) @ harmonics
    step = residual * nearly
    size = rows(residual, step)
    small = _TOLERANCE * size
    for _ in range(_MOST_STEPS):
        image = (weights * (step @ harmonics.T)) @ harmonics + smoothing * step
        length = size / np.maximum(rows(step, image), _TINY)
        coefficients += length * step
        residual -= length * image
        ahead = residual * nearly
        former, size = size, rows(residual, ahead)
        if (size <= small).all():
            break
        step = ahead + size / np.maximum(former, _TINY) * step
    return coefficients


@functools.cache
def _harmonics(order: int, count: int) -> NDArray[np.float32]:
    """Harmonics in the shipped directions of some number, shape (count, (order + 1)²)."""
    return real_spherical_harmonics(directions(count), order).astype(np.float32)


def radii_along(coefficients: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """Radii of shapes in the shipped directions of some number.

    Parameters
    ----------
    coefficients : ndarray, shape (cells, (order + 1)²)
    count : int

    Returns
    -------
    ndarray, shape (cells, count)
    """
    order = math.isqrt(coefficients.shape[1]) - 1
    return np.asarray(coefficients @ _harmonics(order, count).T)


def radius_ranges(coefficients: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shortest and longest radius of shapes, of those along all `COUNT` directions.

    Parameters
    ----------
    coefficients : ndarray, shape (cells, (order + 1)²)

    Returns
    -------
    ndarray of float64, shape (cells, 2)
    """
    return _ranges(coefficients, COUNT)


def _ranges(coefficients: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """The least and the most of what shapes say along the shipped directions of some number."""
    found = np.empty((len(coefficients), 2))
    for start in range(0, len(coefficients), _CHUNK):
        rows = slice(start, start + _CHUNK)
        radii = radii_along(coefficients[rows], count)
        found[rows, 0], found[rows, 1] = radii.min(axis=1), radii.max(axis=1)
    return found


def half_widths(coefficients: NDArray[np.floating]) -> NDArray[np.float64]:
    """Half of the shortest line through the centre of each shape, along `FEWER` directions.

    Parameters
    ----------
    coefficients : ndarray, shape (cells, (order + 1)²)

    Returns
    -------
    ndarray of float64, shape (cells,)
    """
    # Of two opposite directions odd harmonics are the same but for the sign.
    even = degrees(math.isqrt(coefficients.shape[1]) - 1) % 2 == 0
    return _ranges(coefficients * even, FEWER)[:, 0]


def power_per_degree(coefficients: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum of the squares of each degree's coefficients, which no rotation changes.

    Parameters
    ----------
    coefficients : ndarray, shape (cells, (order + 1)²)

    Returns
    -------
    ndarray of float64, shape (cells, order + 1)
        In squares of the coefficients' unit. That of degree 0, divided by 4 pi, is the square of
        the mean radius; the others divided by 4 pi sum up to the variance of the radius.
    """
    order = math.isqrt(coefficients.shape[1]) - 1
    starts = np.arange(order + 1) ** 2
    squares = np.asarray(coefficients, np.float64) ** 2
    return np.asarray(np.add.reduceat(squares, starts, axis=1))


def real_spherical_harmonics(directions: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Real orthonormal spherical harmonics up to `order`.

    Parameters
    ----------
    directions : ndarray, (..., 3)
        Unit vectors (z, y, x).
    order : int
        Largest degree l; the result has (l + 1)² functions.

    Returns
    -------
    ndarray, (..., (order + 1)²)
        Ordered by l, then m = -l..l. The integral of the square over the
        sphere is 1 for each.
    """
    z = directions[..., 0]
    sine = np.sqrt(np.clip(1 - z * z, 0, None))
    phi = np.arctan2(directions[..., 1], directions[..., 2])
    out = np.empty((*z.shape, (order + 1) ** 2))
    # Associated Legendre functions without the Condon-Shortley sign, by the
    # usual recurrence in l for each m.
    factors = norms(order)
    diagonal = np.ones_like(z)
    for m in range(order + 1):
        if m > 0:
            diagonal = diagonal * (2 * m - 1) * sine
        before, current = np.zeros_like(z), diagonal
        for degree in range(m, order + 1):
            if degree > m:
                before, current = (
                    current,
                    ((2 * degree - 1) * z * current - (degree + m - 1) * before) / (degree - m),
                )
            centre = degree * (degree + 1)
            if m == 0:
                out[..., centre] = factors[centre] * current
            else:
                out[..., centre + m] = factors[centre + m] * current * np.cos(m * phi)
                out[..., centre - m] = factors[centre - m] * current * np.sin(m * phi)
    return out


def norms(order: int) -> NDArray[np.float64]:
    """What makes harmonics orthonormal, one factor for each."""
    factors = np.empty((order + 1) ** 2)
    for degree in range(order + 1):
        for m in range(-degree, degree + 1):
            below, above = math.factorial(degree - abs(m)), math.factorial(degree + abs(m))
            norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * below / above)
            factors[degree * (degree + 1) + m] = norm * (math.sqrt(2) if m else 1.0)
    return factors
