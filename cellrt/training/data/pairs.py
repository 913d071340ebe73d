"""Labelled stacks from files: TIFF, HDF5, Zarr and NumPy, paired by glob patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.runtime.image.formats import split_address
from cellrt.runtime.image.reading import read_array
from cellrt.training.recipe import DataTable
from cellrt.wording import counted


def find_pairs(table: DataTable, folder: Path) -> list[tuple[str | None, str]]:
    """Return (image, labels) addresses of a data table, in sorted order.

    Raises
    ------
    InputError
        When a pattern matches nothing or images and labels differ in number.
    """
    labels = expand(table.labels, folder, table.exclude)
    if not labels:
        raise InputError(f"data '{table.name}': labels = '{table.labels}' matches no file")
    if table.images is None:
        return [(None, address) for address in labels]
    images = expand(table.images, folder, table.exclude)
    if len(images) != len(labels):
        raise InputError(
            f"data '{table.name}': {counted(len(images), 'image')} but "
            f"{counted(len(labels), 'label file')}; the two patterns must match the same stacks"
        )
    return list(zip(images, labels, strict=True))


def expand(pattern: str, folder: Path, exclude: tuple[str, ...] = ()) -> list[str]:
    """Return the addresses that a glob pattern relative to `folder` stands for, sorted."""
    pattern, inside = split_address(pattern)
    base = Path(pattern)
    if base.is_absolute():
        found = sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))))
    else:
        # Path.glob refuses "..", which recipes need to reach data beside the project.
        while pattern.startswith("../"):
            folder, pattern = folder.parent, pattern[3:]
        found = sorted(folder.glob(pattern))
    kept = [path for path in found if not any(word in path.name for word in exclude)]
    return [f"{path}:{inside}" if inside else str(path) for path in kept]


def read_stack(address: str) -> npt.NDArray[Any]:
    """Read a whole ``(z, y, x)`` array; axes of length 1 in front are dropped.

    Raises
    ------
    InputError
        When the file cannot be read or is not three-dimensional.
    """
    array = read_array(address)
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"{address}: shape {array.shape}, expected three dimensions (z, y, x)")
    return array
