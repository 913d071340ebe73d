"""Read TIFF pages through Pillow: LZW and JPEG, which tifffile alone cannot decompress.

The package imagecodecs would do it too, but it is not part of the base install and Pillow is.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray


def read_with_pillow(path: Path, series: tifffile.TiffPageSeries) -> NDArray[np.generic] | None:
    """Voxels of a series, or None where Pillow does not read them as they were meant.

    Pages are compared with what the TIFF tags say: Pillow squeezes some kinds of pixels into
    others, and those are not accepted.
    """
    from PIL import Image

    keyframe = series.keyframe
    numbers = [None if page is None else page.index for page in series.pages]
    if not all(isinstance(number, int) for number in numbers):
        return None
    planes = np.empty((len(numbers), *keyframe.shape), dtype=keyframe.dtype)
    if planes.size != series.size:
        return None
    with warnings.catch_warnings(), Image.open(path) as file:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for plane, number in zip(planes, numbers, strict=True):
            file.seek(number)
            values = np.asarray(file)
            if values.shape != plane.shape or values.dtype.kind == "b":
                return None
            if values.dtype.itemsize < plane.dtype.itemsize:
                return None
            plane[...] = values
    shaped: NDArray[np.generic] = planes.reshape(series.shape)
    return shaped
