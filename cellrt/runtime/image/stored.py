"""What a file holds and says, before it is decided what to make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cellrt.errors import InputError
from cellrt.runtime.image.source import StoredArray


@dataclass(frozen=True)
class Provenance:
    """Where a piece of metadata comes from.

    Attributes
    ----------
    origin : {"file", "user", "assumed", "unknown"}
    text : str
        Which metadata it was, in words for a user.
    """

    origin: str
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


@dataclass(frozen=True)
class StatedSize:
    """The voxel size as a file states it, unchecked.

    Attributes
    ----------
    um : three floats or None, (z, y, x) in µm
        None where the file says nothing of that axis.
    source : str
        Which metadata it was, in words for a user.
    reason : str
        Why nothing is stated, where nothing is.
    trusted : bool
        Whether exactly 1 µm is meant, and no placeholder.
    """

    um: tuple[float | None, float | None, float | None] = (None, None, None)
    source: str = ""
    reason: str = ""
    trusted: bool = False


@dataclass(frozen=True, eq=False)
class Stored:
    """An array as a file stores it, with what the file says about it: what a format's reader gives.

    Attributes
    ----------
    array : array
        An array or memory map, or anything that is indexed like one and reads then.
    axes : str or None
        One letter per axis; Q and I stand for "not said". None where the format has no such thing:
        two axes are then (y, x), three (z, y, x), and more are asked for.
    axes_text : str
        Where the axes come from, in words for a user.
    size : StatedSize
    channel_names : sequence of str or None
    chunks : tuple of int or None
        One length per axis, where the array is stored in chunks.
    warnings : tuple of str
        What a user should know about how the file was read.
    holds_labels : bool
        Whether cellrt wrote the file itself, as labels.
    equal_colours : bool
        Whether it was a colour picture of greys, of whose channels one is kept.
    """

    array: StoredArray
    axes: str | None = None
    axes_text: str = ""
    size: StatedSize = field(default_factory=StatedSize)
    channel_names: Sequence[str] | None = None
    chunks: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = ()
    holds_labels: bool = False
    equal_colours: bool = False


def refuse_no_numbers(dtype: np.dtype[Any], where: str) -> None:
    """Refuse an array whose values are no numbers, complex ones included, and say what they are.

    Raises
    ------
    InputError
    """
    if dtype.kind in "uifbc":
        return
    # What h5py adds to the type of text, of lists and of references, which are objects to NumPy.
    known = dict(dtype.metadata or {})
    if dtype.kind in "SUT" or known.get("vlen") in (str, bytes):
        kind = "text"
    elif "vlen" in known:
        kind = "lists of values"
    elif "ref" in known:
        kind = "references"
    elif dtype.names:
        kind = f"records with the fields {', '.join(dtype.names)}"
    elif dtype.kind in "mM":
        kind = "dates or times"
    else:
        kind = "Python objects" if dtype.hasobject else f"{dtype} values"
    raise InputError(
        f"{where}: holds {kind}; expected numbers, one for each voxel: save the image as an array "
        "of integers or floats"
    )
