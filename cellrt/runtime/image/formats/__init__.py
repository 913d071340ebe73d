"""Formats of images: a registry, each a module loaded when it is needed.

An array inside a file is addressed as ``file.h5:dataset`` or ``store.zarr:array``; the name can be
left out where the file holds one. A format from outside the package is added with
`register_format`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from cellrt.errors import InputError, ResourceError, UsageError
from cellrt.files import refuse_special, refuse_url
from cellrt.limits import means_no_memory
from cellrt.runtime.image.stored import Stored, refuse_no_numbers
from cellrt.wording import a_loop

Reader = Callable[[Path, str], Stored]
"""Reads a file, or the array of that name in it; the name is empty where none was given.

Raises `cellrt.errors.InputError` where the file is damaged or the name is missing or wrong.
"""

# So much of a file tells what it is: HDF5 may have something else in front.
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Format:
    """A file format; see `register_format` for the attributes."""

    name: str
    suffixes: tuple[str, ...]
    reader: Reader | str
    starts_with: tuple[bytes, ...] = ()
    starts_at: tuple[int, ...] = (0,)
    folder_holds: tuple[str, ...] = ()
    holds_several: bool = False
    needs: str = ""
    install: str = ""

    def matches_content(self, path: Path, head: bytes) -> bool:
        """Whether a file's first bytes, or the names in a folder, are those of this format."""
        if path.is_dir():
            return any((path / name).exists() for name in self.folder_holds)
        return any(
            head[at:].startswith(start) for start in self.starts_with for at in self.starts_at
        )

    def read(self, path: Path, inside: str) -> Stored:
        """Load the reader and call it.

        Raises
        ------
        InputError
            The package that reads this format is not installed, the values are no numbers, or what
            the reader raises.
        """
        try:
            reader = self.reader
            if isinstance(reader, str):
                module, function = reader.split(":")
                reader = getattr(import_module(module), function)
            with memory_for(path):
                stored = reader(path, inside)
        except ModuleNotFoundError as error:
            if not self.needs or (error.name or "").split(".")[0] != self.needs:
                raise
            raise InputError(
                f"{path.name} is {self.name}, which needs the package {self.needs}; "
                f"install it with: {self.install or f'pip install {self.needs}'}"
            ) from error
        refuse_no_numbers(np.dtype(stored.array.dtype), path.name)
        return stored


_FORMATS: dict[str, Format] = {}


def register_format(
    name: str,
    suffixes: Sequence[str],
    reader: Reader | str,
    *,
    starts_with: Sequence[bytes] = (),
    starts_at: Sequence[int] = (0,),
    folder_holds: Sequence[str] = (),
    holds_several: bool = False,
    needs: str = "",
    install: str = "",
) -> None:
    """Let every command read one more format.

    Parameters
    ----------
    name : str
        In words for a user, such as ``"HDF5"``.
    suffixes : sequence of str
        Endings of such files, with the dot.
    reader : callable or str
        Takes the path and the name of the array inside (empty where none was given) and returns a
        `Stored`. ``"package.module:function"`` is imported when the first such file is read.
    starts_with : sequence of bytes
        What such files begin with: a file that does not is refused, and one with an ending that
        nobody knows is recognised by it.
    starts_at : sequence of int
        Where in the file that may stand.
    folder_holds : sequence of str
        For formats that are folders: names of which one is in each.
    holds_several : bool
        Whether ``file:name`` or ``series`` chooses an array inside; else the name is always empty.
    needs, install : str
        Package that reads the format, and what installs it, for the error where it is missing.

    Raises
    ------
    ValueError
        Another format has this name or one of the endings.

    Examples
    --------
    >>> register_format("raw bytes", [".raw8"], "my_package.raw8:read")  # doctest: +SKIP
    """
    taken = {suffix for other in _FORMATS.values() for suffix in other.suffixes}
    clash = sorted(taken & {suffix.lower() for suffix in suffixes})
    if name in _FORMATS or clash:
        raise ValueError(f"the format {name!r} or its endings {clash} are registered already")
    _FORMATS[name] = Format(
        name,
        tuple(suffix.lower() for suffix in suffixes),
        reader,
        tuple(starts_with),
        tuple(starts_at),
        tuple(folder_holds),
        holds_several,
        needs,
        install,
    )


def split_address(address: str) -> tuple[str, str]:
    """Split ``file.h5:dataset`` into file and dataset; the second is empty when there is none.

    Examples
    --------
    >>> split_address("a/b.zarr:0/raw"), split_address("C:/b.tif")
    (('a/b.zarr', '0/raw'), ('C:/b.tif', ''))
    """
    lower = address.lower()
    for known in _FORMATS.values():
        for suffix in known.suffixes if known.holds_several else ():
            at = lower.rfind(f"{suffix}:")
            if at >= 0:
                end = at + len(suffix)
                return address[:end], address[end + 1 :].strip("/")
    return address, ""


def parse_address(address: str | os.PathLike[str]) -> tuple[Path, str]:
    """File and name inside of an address; a file that is called like the whole address wins.

    Raises
    ------
    UsageError
        It is empty, as of a variable that is not set, or stands for several files.
    InputError
        It is a URL.
    """
    text = os.fspath(address)
    if not text.strip():
        raise UsageError(f"the input is '{text}', which names no file; give a file's path")
    refuse_url(text)
    file, inside = (text, "") if os.path.exists(text) else split_address(text)
    return Path(file), inside


def known_suffixes() -> tuple[str, ...]:
    """Endings of all formats."""
    return tuple(suffix for known in _FORMATS.values() for suffix in known.suffixes)


def is_image_folder(path: Path) -> bool:
    """Whether a folder is an image, or a part of one."""
    names = (name for known in _FORMATS.values() for name in known.folder_holds)
    return any((path / name).is_file() for name in names)


def locate(address: str | os.PathLike[str]) -> tuple[Path, str, Format]:
    """File, name inside and format of an address."""
    path, inside = parse_address(address)
    head = _head(path)
    suffix = path.suffix.lower()
    named = next((known for known in _FORMATS.values() if suffix in known.suffixes), None)
    if named is not None and (
        named.folder_holds
        if path.is_dir()
        else not named.starts_with or named.matches_content(path, head)
    ):
        return path, inside, named
    # What a file holds goes before what it is called, as with JPEG under the name of PNG.
    found = next((known for known in _FORMATS.values() if known.matches_content(path, head)), None)
    if found is not None:
        return path, inside, found
    expected = ", ".join(known.name for known in _FORMATS.values())
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; expected one image file, or a Zarr store: give its files one "
            "by one, in a loop of the shell or over one cellrt.Segmenter in Python"
        )
    if named is not None:
        raise InputError(
            f"{path.name} is no {named.name} file, whatever its ending says; "
            "save the image as TIFF or OME-TIFF, for example with Fiji"
        )
    raise InputError(
        f"{path.name} is of no format that is known; expected {expected}: "
        "save the image as TIFF or OME-TIFF, for example with Fiji"
    )


@contextmanager
def memory_for(path: Path) -> Iterator[None]:
    """Say of a file that is read in a block that it does not fit into memory, where that is so."""
    try:
        yield
    except (MemoryError, OSError, InputError) as error:
        # Memory that runs out in the middle of a file looks like damage to those who read it.
        if not means_no_memory(error):
            raise
        reason = "" if isinstance(error, InputError) or not str(error) else f" ({error})"
        raise ResourceError(f"{path.name} does not fit into memory{reason}; use a crop") from error


def _head(path: Path) -> bytes:
    """Return a file's first bytes, nothing for a folder; refuse what cannot be read at all."""
    if not os.path.exists(path):  # unlike Path.exists false for names that are too long, too
        if set("*?") & set(str(path)):
            raise UsageError(
                f"{path} is a pattern and no file, and one stack is taken at a time; {a_loop()}"
            )
        raise InputError(f"{path} does not exist; expected an image file: check the path")
    if path.is_dir():
        return b""
    refuse_special(path, "save it to a file first")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not head:
        raise InputError(f"{path} is empty (0 bytes); copy or save it again")
    return head


register_format(
    "TIFF",
    [".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk"],
    "cellrt.runtime.image.formats.tiff:read",
    starts_with=[b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"],
    holds_several=True,
)
register_format(
    "NumPy", [".npy"], "cellrt.runtime.image.formats.npy:read_npy", starts_with=[b"\x93NUMPY"]
)
register_format("NPZ", [".npz"], "cellrt.runtime.image.formats.npy:read_npz", holds_several=True)
register_format(
    "HDF5",
    [".h5", ".hdf5", ".hdf", ".he5"],
    "cellrt.runtime.image.formats.hdf5:read",
    starts_with=[b"\x89HDF\r\n\x1a\n"],
    starts_at=(0, 512, 1024, 2048),
    holds_several=True,
    needs="h5py",
    install="pip install 'cellrt[hdf5]'",
)
register_format(
    "Zarr",
    [".zarr"],
    "cellrt.runtime.image.formats.zarr:read",
    folder_holds=[".zarray", ".zgroup", "zarr.json"],
    holds_several=True,
    needs="zarr",
    install="pip install 'cellrt[zarr]'",
)
register_format(
    "PNG",
    [".png"],
    "cellrt.runtime.image.formats.pictures:read",
    starts_with=[b"\x89PNG\r\n\x1a\n"],
)
register_format(
    "JPEG",
    [".jpg", ".jpeg"],
    "cellrt.runtime.image.formats.pictures:read",
    starts_with=[b"\xff\xd8\xff"],
)
