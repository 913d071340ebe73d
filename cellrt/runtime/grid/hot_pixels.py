"""Single pixels that are far brighter than all around them: hot pixels, cosmic rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellrt.compiled import compiled

# A hot pixel exceeds the second brightest of its eight neighbours by this many times their range.
# Of normal noise no pixel does that; lines and spots that optics made are two pixels wide.
RANGES = 3.0
# Only what is brighter than this share of the image can move anything.
HOT_QUANTILE = 0.99


def without_hot_pixels(
    planes: NDArray[np.generic],
    least: ArrayLike,
    inner: tuple[slice, slice] = (slice(None), slice(None)),
) -> NDArray[np.float32]:
    """Copy planes, hot pixels lowered to the second brightest of their neighbours in the plane.

    The second, so that two hot pixels side by side are found too.

    Parameters
    ----------
    planes : ndarray, any real dtype, shape (z, y, x)
    least : float, or one for each plane
        Pixels up to this grey value are not looked at.
    inner : (slice, slice)
        Rows and columns that are wanted; the others are only neighbours of these.

    Returns
    -------
    ndarray, float32, of these rows and columns
    """
    # One type for the kernel, whatever the image's, its order in memory, and who may write to it.
    seen = planes.astype(np.float32, order="C")
    result: NDArray[np.float32] = seen[:, inner[0], inner[1]].copy()
    first = [part.start or 0 for part in inner]
    limits = np.empty(len(seen), np.float32)
    limits[...] = least
    _clamp(seen, limits, first[0], first[1], result)
    return result


@compiled
def _clamp(planes, least, y_first, x_first, out):  # type: ignore[no-untyped-def]
    _, height, width = planes.shape
    for z in range(out.shape[0]):
        for y in range(y_first, y_first + out.shape[1]):
            for x in range(x_first, x_first + out.shape[2]):
                value = planes[z, y, x]
                if not value > least[z]:
                    continue
                first = np.float32(-np.inf)
                second = np.float32(-np.inf)
                lowest = np.float32(np.inf)
                for b in range(max(0, y - 1), min(height, y + 2)):
                    for a in range(max(0, x - 1), min(width, x + 2)):
                        if b == y and a == x:
                            continue
                        other = planes[z, b, a]
                        if other > first:
                            second = first
                            first = other
                        elif other > second:
                            second = other
                        lowest = min(lowest, other)
                if second > -np.inf and value - second > RANGES * (second - lowest):
                    out[z, y - y_first, x - x_first] = second
