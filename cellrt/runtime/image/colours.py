"""Colour pictures: three channels, and their luminance as a further one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.image.source import VoxelSource, as_box

COLOURS = ("red", "green", "blue")
LUMINANCE = "luminance"
# ITU-R BT.601, as Pillow's and OpenCV's conversion to grey.
_WEIGHTS = (0.299, 0.587, 0.114)


class Luminance:
    """The luminance of a colour image, computed box by box from its red, green and blue.

    It is indexed as an array (z, y, x) of their type, rounded where that is of whole numbers.

    Parameters
    ----------
    colours : sequence of VoxelSource
        Red, green and blue.

    Examples
    --------
    >>> from cellrt.runtime.image.volume import volume_from_array
    >>> pure = volume_from_array(np.uint8(255 * np.eye(3))[:, None], axes="CYX", channel=1)
    >>> Luminance(pure.channels)[0, 0].tolist()
    [76, 150, 29]
    """

    def __init__(self, colours: Sequence[VoxelSource]) -> None:
        self._colours = tuple(colours)
        self.shape: Shape = colours[0].shape
        self.dtype: np.dtype[Any] = colours[0].dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read what basic indexing of NumPy would give."""
        box, dropped = as_box(index, self.shape)
        mixed = np.zeros([len(range(s.start, s.stop, s.step)) for s in box], np.float64)
        for weight, colour in zip(_WEIGHTS, self._colours, strict=True):
            mixed += weight * colour.read(box)
        if self.dtype.kind != "f":
            np.rint(mixed, out=mixed)
        found: NDArray[Any] = mixed.astype(self.dtype)
        return found[tuple(0 if drop else slice(None) for drop in dropped)]


def is_colour(axes: str | None, names: Sequence[str]) -> bool:
    """Whether samples of a picture, as its file's axes and channels are called, are colours."""
    return "S" in (axes or "") and tuple(names[:3]) == COLOURS
