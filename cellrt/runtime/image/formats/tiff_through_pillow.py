"""Read TIFF pages through Pillow: LZW and JPEG, which tifffile alone cannot decompress.

The package imagecodecs would do it too, but it is not part of the base install and Pillow is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellrt.runtime.image.formats.large_pictures import large_pictures

_ORIENTATION = 274
_TURN_BACK: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda page: page[:, ::-1],
    3: lambda page: page[::-1, ::-1],
    4: lambda page: page[::-1],
    5: lambda page: page.swapaxes(0, 1),
    6: lambda page: np.rot90(page, 1),
    7: lambda page: np.rot90(page, 2).swapaxes(0, 1),
    8: lambda page: np.rot90(page, -1),
}


def read_with_pillow(series: tifffile.TiffPageSeries) -> NDArray[np.generic] | None:
    """Voxels of a series, or None where Pillow does not read them as they were meant.

    Pages are compared with what the TIFF tags say: Pillow squeezes some kinds of pixels into
    others, and those are not accepted.
    """
    from PIL import Image, UnidentifiedImageError

    keyframe = series.keyframe
    home = keyframe.parent  # pages may be spread over files
    numbers = [page.index for page in series.pages if page is not None and page.parent is home]
    if len(numbers) < len(series.pages) or not all(isinstance(number, int) for number in numbers):
        return None
    planes = np.empty((len(numbers), *keyframe.shape), dtype=keyframe.dtype)
    if planes.size != series.size:
        return None
    try:
        file = Image.open(home.filehandle.path)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None
    with large_pictures(), file:
        for plane, number in zip(planes, numbers, strict=True):
            file.seek(number)
            orientation = file.getexif().get(_ORIENTATION, 1)
            values = np.asarray(file)
            # Pillow turns pages the way up they are meant to be shown, and then takes that tag
            # away; Fiji and tifffile read them as they are stored, and so it is done here.
            if orientation in _TURN_BACK and _ORIENTATION not in file.getexif():
                values = _TURN_BACK[orientation](values)
            if values.shape != plane.shape or values.dtype.kind == "b":
                return None
            if values.dtype.itemsize < plane.dtype.itemsize:
                return None
            plane[...] = values
    shaped: NDArray[np.generic] = planes.reshape(series.shape)
    return shaped
