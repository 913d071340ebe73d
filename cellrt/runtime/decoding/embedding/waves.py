"""Waves of objects, as seen from each pixel, turned into places that all pixels of one share.

The mean over an object of the wave ``exp(2 pi i f . q)`` is the wave at any pixel p times the mean
of ``exp(2 pi i f . (q - p))``. A network says the second factor, which has nothing to do with where
the image begins; what is merged of several tiles is turned once, here. Kulikov and Lempitsky (2020)
take the mean of the sine alone. Of both parts two objects are as far from each other wherever they
lie, and twice as much is known.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.threads import in_threads

if TYPE_CHECKING:
    from cellrt.runtime.model.card_parts import Guides


def turn_waves(
    fields: npt.NDArray[np.float32],
    top: int,
    guides: Guides,
    step: float,
    kept: npt.NDArray[np.int16],
) -> None:
    """Write both parts of each turned wave, and the foreground, as multiples of a step.

    Parameters
    ----------
    fields : (2 d + 1, z, y, x) float32 array
        Real parts, imaginary parts, foreground; of rows that are whole along x.
    top : int
        Where its first row lies in the image.
    guides : Guides
        d of them.
    step : float
    kept : (z, y, x, 2 d + 1) int16 array
        Result, in the same order; what is beyond the range is cut.
    """
    _, depth, height, width = fields.shape
    # Angles of rows and of columns by themselves: sums of two need no more sines.
    frequencies = 2 * np.pi * np.array(guides.frequencies)
    angles = (
        frequencies[:, :1] * (top + np.arange(height)) + np.array(guides.phases)[:, None],
        frequencies[:, 1:] * np.arange(width),
    )
    waves = [turn(angle).astype(np.float32) for angle in angles for turn in (np.cos, np.sin)]
    for plane in range(depth):
        work = partial(_turn_rows, fields[:, plane], *waves, np.float32(1 / step), kept[plane])
        in_threads(height, work, voxels=fields[:, plane].size)


@compiled
def _turn_rows(
    fields: Any,
    row_cosine: Any,
    row_sine: Any,
    column_cosine: Any,
    column_sine: Any,
    scale: Any,
    kept: Any,
    first: Any,
    end: Any,
) -> None:
    count = row_cosine.shape[0]
    for y in range(first, end):
        for k in range(count):
            for x in range(kept.shape[1]):
                cosine = row_cosine[k, y] * column_cosine[k, x] - row_sine[k, y] * column_sine[k, x]
                sine = row_sine[k, y] * column_cosine[k, x] + row_cosine[k, y] * column_sine[k, x]
                real, imaginary = fields[k, y, x], fields[count + k, y, x]
                kept[y, x, k] = _whole((real * cosine - imaginary * sine) * scale)
                kept[y, x, count + k] = _whole((real * sine + imaginary * cosine) * scale)
        for x in range(kept.shape[1]):
            kept[y, x, 2 * count] = _whole(fields[2 * count, y, x] * scale)


@inlined
def _whole(value: Any) -> Any:
    return np.int16(min(max(np.rint(value), -32768), 32767))
