"""How deep a voxel is in a shape of harmonics: for the CPU and for GPUs, which give the same bits.

Each product is rounded before something is added to it; see `cellrt.runtime.decoding.rounding`. A
thread of a GPU compares one voxel with the radius there, `radius_along`; the CPU many at a time,
`harmonic_ratios`, by the same steps in the same order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.rounding import dot, times

MARGIN = 1.02
"""Between the directions in which it is known, a shape may reach a little farther."""

# Voxels that go through the recurrence together, and where in memory each number of theirs is: in
# one array, as a compiler that does not see that several are apart takes one after the other.
_LANES = 64
_Z, _Y, _X, _DISTANCE, _COSINE, _SINE = (k * _LANES for k in range(6))
_BEFORE, _CURRENT, _PLUS, _MINUS, _RADIUS = (k * _LANES for k in range(6, 11))


def recurrence(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors of the two former Legendre functions of an m in the next one, by degree and m."""
    up, down = np.zeros((order + 1, order + 1)), np.zeros((order + 1, order + 1))
    for degree in range(1, order + 1):
        for m in range(degree):
            up[degree, m] = (2 * degree - 1) / (degree - m)
            down[degree, m] = (degree + m - 1) / (degree - m)
    return up, down


# It takes numbers: with arrays, which would spare callers some lines, the CPU took twice as long.
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
def harmonic_ratios(
    c: Any,
    order: int,
    up: Any,
    down: Any,
    reach: Any,
    limit: Any,
    away: Any,
    count: int,
    ratios: Any,
) -> None:
    """How deep some voxels are in a shape: what `radius_along` and `harmonic_ratio` give.

    Several times as fast, as one instruction of a processor does the same to several numbers.

    Parameters
    ----------
    c, order, up, down
        As for `radius_along`.
    reach, limit : float
        Beyond that distance, and that multiple of the radius, nothing is of the shape.
    away : (3, n) float64 array
        (z, y, x) from the centre.
    count : int
        Of the voxels, which are the first ones of `away`.
    ratios : (n,) float32 array
        The result, negative outside.
    """
    w = np.zeros(11 * _LANES)
    for first in range(0, count, _LANES):
        lanes = min(_LANES, count - first)
        for i in range(lanes):
            w[_Z + i] = away[0, first + i]
            w[_Y + i] = away[1, first + i]
            w[_X + i] = away[2, first + i]
        for i in range(_LANES):
            z, y, x = w[_Z + i], w[_Y + i], w[_X + i]
            distance = math.sqrt(dot(z, y, x, z, y, x))
            inverse = 1.0 / distance if distance > 0.0 else 0.0
            w[_DISTANCE + i] = distance
            w[_Z + i] = z * inverse
            w[_Y + i] = y * inverse
            w[_X + i] = x * inverse
            w[_COSINE + i], w[_SINE + i], w[_RADIUS + i] = 1.0, 0.0, 0.0
        start = 1.0
        for m in range(order + 1):
            middle = m * (m + 1)
            p, q = c[middle + m], c[middle - m]
            for i in range(_LANES):
                w[_BEFORE + i], w[_CURRENT + i] = 0.0, start
                w[_PLUS + i] = 0.0 + times(p, start)
                w[_MINUS + i] = 0.0 + times(q, start)
            for degree in range(m + 1, order + 1):
                middle = degree * (degree + 1)
                p, q = c[middle + m], c[middle - m]
                a, b = up[degree, m], down[degree, m]
                for i in range(_LANES):
                    former = w[_CURRENT + i]
                    current = times(a * w[_Z + i], former) - times(b, w[_BEFORE + i])
                    w[_BEFORE + i] = former
                    w[_CURRENT + i] = current
                    w[_PLUS + i] += times(p, current)
                    w[_MINUS + i] += times(q, current)
            # That of no azimuth has no sine.
            has_sine = 1.0 if m > 0 else 0.0
            for i in range(_LANES):
                cosine, sine = w[_COSINE + i], w[_SINE + i]
                minus = has_sine * times(w[_MINUS + i], sine)
                w[_RADIUS + i] += times(w[_PLUS + i], cosine) + minus
                w[_COSINE + i] = times(cosine, w[_X + i]) - times(sine, w[_Y + i])
                w[_SINE + i] = times(sine, w[_X + i]) + times(cosine, w[_Y + i])
            start *= 2 * m + 1
        for i in range(lanes):
            distance = w[_DISTANCE + i]
            ratio = harmonic_ratio(distance, w[_RADIUS + i], limit)
            ratios[first + i] = ratio if distance <= reach else np.float32(-1.0)
