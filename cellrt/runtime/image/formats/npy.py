"""Arrays that NumPy saved: ``.npy``, which is memory-mapped, and ``.npz``, which is read whole."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.image.formats.damage import damaged
from cellrt.runtime.image.formats.inside import choose_array
from cellrt.runtime.image.source import Unread
from cellrt.runtime.image.stored import StatedSize, Stored, refuse_no_numbers

_SIZE = StatedSize(reason="NumPy files hold no voxel size")
# What NumPy and zipfile raise on files that are not whole.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, struct.error, zlib.error, zipfile.BadZipFile)


def read_npy(path: Path, inside: str) -> Stored:
    """Map an array into memory; ``inside`` is empty.

    Raises
    ------
    InputError
        A damaged file, or one with Python objects instead of numbers.
    """
    try:
        with path.open("rb") as file:
            _, dtype = _read_header(file)
        refuse_no_numbers(dtype, path.name)  # objects cannot be mapped, which is no damage
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise damaged(path.name, str(error)) from error
    return Stored(array, size=_SIZE)


def read_npz(path: Path, inside: str) -> Stored:
    """Read the array named ``inside``, or the only one.

    Raises
    ------
    InputError
        A damaged file, several arrays and none named, no array of that name.
    """
    try:
        file = np.load(path, allow_pickle=False)
        names = list(file.files)
    except (*_DAMAGE, AttributeError) as error:  # one array that is no archive has no names
        raise damaged(path.name, str(error)) from error
    with file:
        name = choose_array(names, inside, path.name)
        try:
            shape, dtype = _header(file, name)
        except _DAMAGE as error:
            raise damaged(path.name, str(error)) from error
    return Stored(Unread(shape, dtype, lambda: _read_from(path, name)), size=_SIZE)


def _header(file: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without unpacking it."""
    member = name if name in file.zip.namelist() else f"{name}.npy"
    with file.zip.open(member) as packed:
        return _read_header(packed)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return shape, dtype


def _read_from(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            array: NDArray[Any] = file[name]
    except _DAMAGE as error:
        raise damaged(path.name, str(error)) from error
    return array
