"""PNG and JPEG through Pillow: one grey or colour picture each, with the pixels as they are stored.

What would be read as something else is refused, and what a viewer shows otherwise is said.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.runtime.image.colours import COLOURS
from cellrt.runtime.image.formats.damage import damaged
from cellrt.runtime.image.formats.large_pictures import large_pictures
from cellrt.runtime.image.stored import StatedSize, Stored

if TYPE_CHECKING:
    from PIL.Image import Image

_SIZE = StatedSize(reason="pictures hold the size of a print at most, and no pixel size in µm")
_ORIENTATION = 274
# Pillow's modes of pixels that are kept as they are: what is stored, and how many of its bands are
# no transparency.
_KEPT = {"1": 1, "L": 1, "I;16": 1, "I": 1, "LA": 1, "RGB": 3, "RGBA": 3}
_DEEP_COLOUR = 16


def read(path: Path, inside: str) -> Stored:
    """Read a picture; ``inside`` is empty.

    Colours are channels, unless all three are equal: then the picture is grey.

    Raises
    ------
    InputError
        A damaged or animated picture, one whose values are numbers of a palette's colours, or of a
        kind that Pillow would change.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with large_pictures():
            file = Image.open(path)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name} is larger than pictures are; save it as TIFF") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error) as error:
        raise damaged(path.name, str(error)) from error
    with file:
        _refuse(path, file)
        pixels = _pixels(path, file)
        said = []
        if file.format == "JPEG":
            said.append(
                f"{path.name} is JPEG, which loses part of every pixel: brightness in the table is "
                "not what the camera saw"
            )
        if file.getexif().get(_ORIENTATION, 1) != 1:
            said.append(
                f"{path.name} asks viewers to turn it (EXIF orientation); it is read as it is "
                "stored, and so are its labels"
            )
    bands = _KEPT[file.mode]
    equal = False
    if pixels.ndim == 3:
        if pixels.shape[2] > bands:
            if (pixels[..., bands:] != pixels[0, 0, bands:]).any():
                said.append(f"the transparency of {path.name} is left out")
            pixels = pixels[..., :bands]
        equal = bands > 1 and bool((pixels == pixels[..., :1]).all())
        if bands == 1 or equal:
            pixels = pixels[..., 0]
    colour = pixels.ndim == 3
    return Stored(
        np.ascontiguousarray(pixels),
        axes="YXS" if colour else "YX",
        axes_text="a picture has rows and columns" + (", and colours" if colour else ""),
        size=_SIZE,
        channel_names=COLOURS if colour else None,
        warnings=tuple(said),
        equal_colours=equal,
    )


def _refuse(path: Path, file: Image) -> None:
    """Refuse pictures that are several, or whose values mean something else."""
    frames = getattr(file, "n_frames", 1)
    if frames > 1:
        raise InputError(
            f"{path.name} is animated, with {frames} frames, whose times nobody says; save them as "
            "one TIFF stack"
        )
    if file.mode == "P":
        raise InputError(
            f"{path.name} has a palette: its pixels are numbers of colours and no brightness; save "
            "it in grey (8 or 16 bits) or RGB"
        )
    deep = _bits(path, file) == _DEEP_COLOUR
    if file.mode not in _KEPT or (deep and _KEPT[file.mode] == len(COLOURS)):
        raise InputError(
            f"{path.name} has pixels of a kind that cannot be read without loss "
            f"({_kind(path, file)}); save it as TIFF"
        )


def _pixels(path: Path, file: Image) -> NDArray[Any]:
    try:
        pixels = np.asarray(file)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise damaged(path.name, str(error)) from error
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * 255
    # 16 bits in a wider type, as some versions of Pillow read grey PNG.
    return pixels.astype(np.uint16) if file.mode == "I" and file.format == "PNG" else pixels


def _bits(path: Path, file: Image) -> int:
    """Bits of one colour of a PNG; 8 of all else."""
    if file.format != "PNG":
        return 8
    with path.open("rb") as stored:
        return stored.read(25)[24]  # after signature, length, IHDR, width and height


def _kind(path: Path, file: Image) -> str:
    return f"{_bits(path, file)} bits a colour" if file.mode in _KEPT else f"mode {file.mode}"
