"""Which dimension of an array is z, which is y, which holds channels: read, checked, never guessed.

Letters: X, Y, Z space; C channel; S samples of a colour image (treated as channels); T time;
Q and I a dimension without a meaning in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellrt.errors import InputError

# Files without axes whose short dimension is at most this may well hold channels or colours there.
_FEWEST_SLICES = 5

_AXIS_NAMES = {
    "T": "time",
    "C": "channel",
    "Z": "z",
    "Y": "y",
    "X": "x",
    "A": "angle",
    "P": "phase or position",
    "R": "tile",
    "H": "lifetime",
    "L": "exposure",
    "V": "event",
    "M": "mosaic",
    "N": "number",
    "E": "wavelength",
}
_LETTERS = {
    **{letter: letter.upper() for letter in "tczyx"},
    "time": "T",
    "channel": "C",
    "channels": "C",
    "depth": "Z",
    "height": "Y",
    "width": "X",
}


@dataclass(frozen=True)
class Axes:
    """Axes of an array in its own order, one letter per dimension, and how they are known."""

    letters: str
    origin: str
    text: str


def contradicted(file_axes: str, origin_text: str, user_axes: str) -> list[str]:
    """The warning that a user turns a stack whose axes the file says, where that is so.

    Another name for slices, as for time points, turns nothing.
    """
    named = zip(file_axes, user_axes, strict=True)
    if not any(a != b and {a, b} <= set("ZYX") for a, b in named):
        return []
    return [
        f"the axes are {user_axes} as given, where the file says {file_axes} ({origin_text}): "
        "leave --axes out if the file is right"
    ]


def resolve_axes(
    shape: tuple[int, ...], file_axes: str, origin_text: str, user_axes: str | None, where: str
) -> Axes:
    """Decide the meaning of every dimension, or refuse.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    file_axes : str
        One letter per dimension as found in the file; Q and I stand for "not said".
    origin_text : str
        Where ``file_axes`` come from, for the provenance.
    user_axes : str or None
        What the user says; wins over the file.
    where : str
        The file's or array's name, for messages.

    Raises
    ------
    InputError
        Where the user's axes do not fit the array, or the file does not say enough.
    """
    if user_axes is not None:
        return Axes(_checked_user_axes(user_axes, shape, where), "user", "given by the user")
    named = [letter for letter in file_axes if letter not in "QI"]
    if len(set(named)) < len(named):
        raise InputError(
            f"{where}: the file gives one name to several axes ({file_axes}); "
            f"say what they are with --axes, for example --axes {example_axes(shape)}"
        )
    unknown = [i for i, letter in enumerate(file_axes) if letter in "QI"]
    if not unknown:
        return Axes(_samples_as_channels(file_axes, shape, where), "file", origin_text)
    counted = [i for i in unknown if shape[i] > 1]
    described = "x".join(str(n) for n in shape)
    if len(counted) > 1 or "Z" in file_axes or any(c in file_axes for c in "CTS"):
        raise InputError(
            f"{where}: {described} voxels, and the file does not say what its axes mean; "
            f"say it with --axes, for example --axes {example_axes(shape)}"
        )
    letters = list(file_axes)
    for i in unknown:
        letters[i] = "Z" if (not counted and i == unknown[-1]) or i in counted else "T"
    few_last = shape[-1] < _FEWEST_SLICES
    if counted and (shape[counted[0]] < _FEWEST_SLICES or few_last):
        raise InputError(
            f"{where}: {described} voxels without axes in the file could be slices or channels; "
            f"say which with --axes ZYX or --axes {'YXC' if few_last else 'CYX'}"
        )
    return Axes(
        "".join(letters),
        "assumed",
        f"the file names no axes; its {shape[counted[0]] if counted else 1} pages are taken as z",
    )


def axes_from_names(names: Sequence[str | None]) -> str:
    """Letters for the names that a file gives its axes, Q for those that mean nothing here.

    Examples
    --------
    >>> axes_from_names(["channel", "z", "Y", None])
    'CZYQ'
    """
    letters = [_LETTERS.get((name or "").strip().lower(), "Q") for name in names]
    return "".join(letters)


def _checked_user_axes(user_axes: str, shape: tuple[int, ...], where: str) -> str:
    letters = user_axes.upper().replace("S", "C").replace(",", "").replace(" ", "")
    described = "x".join(str(n) for n in shape)
    if (
        len(letters) != len(set(letters))
        or not set(letters) <= set("TCZYX")
        or not {"Y", "X"} <= set(letters)
    ):
        raise InputError(
            f"axes {user_axes!r} make no image: use each of T, C, Z, Y, X at most once, "
            f"Y and X always, for example --axes {example_axes(shape)}"
        )
    if len(letters) != len(shape):
        raise InputError(
            f"{where}: has {len(shape)} dimensions ({described}) but --axes {user_axes} names "
            f"{len(letters)}; name one letter per dimension"
        )
    return letters


def _samples_as_channels(letters: str, shape: tuple[int, ...], where: str) -> str:
    for letter, length in zip(letters, shape, strict=True):
        if letter not in "TCZYXS" and length > 1:
            raise InputError(
                f"{where}: has {length} images along axis {letter!r} "
                f"({_AXIS_NAMES.get(letter, 'unknown')}), which cannot be segmented together; "
                "save one of them as its own file, or name the axes with --axes"
            )
    if "S" in letters:
        if "C" not in letters:
            return letters.replace("S", "C")
        raise InputError(
            f"{where}: has both channels and colour samples (axes {letters}); "
            "save the channels as separate grey images"
        )
    return letters


def example_axes(shape: tuple[int, ...]) -> str:
    """Axes that an array of this shape may well have, for messages.

    The shortest axis is taken for channels, and of what is left the longest for z.

    Examples
    --------
    >>> example_axes((20, 2, 64, 64)), example_axes((2, 64, 64, 3)), example_axes((3, 30, 64, 64))
    ('ZCYX', 'ZYXC', 'CZYX')
    """
    if len(shape) <= 3:
        return "ZYX"[-max(2, len(shape)) :]
    last = len(shape) - 1
    # Colours are stored last; no image is so narrow.
    colours_last = shape[last] < _FEWEST_SLICES and shape[last] < min(shape[last - 2 : last])
    plane = {last - 2: "Y", last - 1: "X"} if colours_last else {last - 1: "Y", last: "X"}
    others = [i for i in range(len(shape)) if i not in plane]
    channel = last if colours_last else min(others, key=lambda i: (shape[i], -i))
    z = max((i for i in others if i != channel), key=lambda i: (shape[i], i))
    letters = {**plane, channel: "C", z: "Z"}
    return "".join(letters.get(i, "T") for i in range(len(shape)))
