"""How deep a voxel is in a shape of harmonics: for the CPU and for GPUs, which give the same bits.

Each product is rounded before something is added to it; see `cellrt.runtime.decoding.rounding`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.rounding import times

MARGIN = 1.02
"""Between the directions in which it is known, a shape may reach a little farther."""


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
