"""Single pixels that are far brighter than all around them: hot pixels, cosmic rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled

# A hot pixel exceeds the second brightest of its eight neighbours by this many times their range.
# Of normal noise no pixel does that; lines and spots that optics made are two pixels wide.
RANGES = 3.0
# Only what is brighter than this share of the image can move anything.
HOT_QUANTILE = 0.99


def without_hot_pixels(plane: NDArray[np.generic], least: float) -> NDArray[np.float32]:
    """Copy a plane, hot pixels lowered to the second brightest of their neighbours.

    The second, so that two hot pixels side by side are found too.

    Parameters
    ----------
    plane : ndarray, any real dtype, shape (y, x)
    least : float
        Pixels up to this grey value are not looked at.

    Returns
    -------
    ndarray, float32, same shape
    """
    # One type for the kernel, whatever the image's, its order in memory, and who may write to it.
    seen = plane.astype(np.float32, order="C")
    result: NDArray[np.float32] = seen.copy()
    _clamp(seen, np.float32(least), result)
    return result


@compiled
def _clamp(plane, least, out):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    for y in range(height):
        for x in range(width):
            value = plane[y, x]
            if not value > least:
                continue
            first = np.float32(-np.inf)
            second = np.float32(-np.inf)
            lowest = np.float32(np.inf)
            for b in range(max(0, y - 1), min(height, y + 2)):
                for a in range(max(0, x - 1), min(width, x + 2)):
                    if b == y and a == x:
                        continue
                    other = plane[b, a]
                    if other > first:
                        second = first
                        first = other
                    elif other > second:
                        second = other
                    lowest = min(lowest, other)
            if second > -np.inf and value - second > RANGES * (second - lowest):
                out[y, x] = second
