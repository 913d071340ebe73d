"""Shapes and lines of volumes: what every room means by (z, y, x)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError

Shape = tuple[int, int, int]
"""(z, y, x)."""

Box = tuple[slice, slice, slice]
"""The voxels from start to stop along (z, y, x)."""

LabelArray = npt.NDArray[np.int32]

Lines = tuple[int, int, int, int, int, int]


def canonical_labels(labels: npt.NDArray[np.integer[Any]]) -> LabelArray:
    """Return `labels` as a C-contiguous int32 (z, y, x) array, without a copy where it is one."""
    array = np.asarray(labels)
    if array.ndim != 3 or array.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {array.shape} and type {array.dtype}; "
            "expected a three-dimensional integer array (z, y, x)"
        )
    return np.ascontiguousarray(array, dtype=np.int32)


def axis_lines(shape: tuple[int, ...]) -> tuple[Lines, Lines, Lines]:
    """Walk along all lines of each axis of a flat array.

    Returns
    -------
    three tuples of six int
        Outer count, outer stride, line length, line stride, inner count, inner stride. The inner
        loop runs along memory, so that lines along z and y are read as fast as lines along x.
    """
    nz, ny, nx = shape
    return (
        (ny, nx, nz, ny * nx, nx, 1),
        (nz, ny * nx, ny, nx, nx, 1),
        (nz * ny, nx, nx, 1, 1, 1),
    )


def across_planes(width: int, planar: bool, along_z: int) -> Shape:
    """A width along every axis (z, y, x); along z another one where planes are looked at apart."""
    return (along_z if planar else width, width, width)
