"""Arrays inside files: which one is meant, and what their attributes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellrt.errors import InputError
from cellrt.runtime.image.stored import StatedSize

ELEMENT_SIZE = "element_size_um"
"""Attribute with the voxel size (z, y, x) in µm, as Fiji's HDF5 plugins and PlantSeg write it."""


def choose_array(names: Sequence[str], wanted: str, file: str) -> str:
    """Return the name of the array to read.

    Parameters
    ----------
    names : sequence of str
        Arrays in the file.
    wanted : str
        What the user named; empty where nothing was.
    file : str
        The file's name, for messages.

    Raises
    ------
    InputError
        There is no such array, or several and none was named.
    """
    if not wanted and len(names) == 1:
        return names[0]
    if wanted and wanted.strip("/") in names:
        return wanted.strip("/")
    listed = ", ".join(names) or "none"
    problem = "was given without a dataset" if not wanted else f"has no dataset '{wanted}'"
    raise InputError(f"{file} {problem}, it holds: {listed}; write {file}:NAME with one of them")


def size_from_attributes(attributes: Mapping[str, Any]) -> StatedSize:
    """Voxel size out of the attributes of an HDF5 or Zarr array."""
    if ELEMENT_SIZE not in attributes:
        return StatedSize(reason="the file has no voxel size")
    try:
        sizes = [float(value) for value in np.ravel(attributes[ELEMENT_SIZE])]
    except (TypeError, ValueError):
        sizes = []
    if len(sizes) != 3:
        return StatedSize(reason=f"the attribute {ELEMENT_SIZE} is not three numbers, z y x in µm")
    return StatedSize((sizes[0], sizes[1], sizes[2]), f"attribute {ELEMENT_SIZE}")
