"""Shapes as a table of comma-separated values, one row per cell, and back."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError, UsageError, first_line
from cellrt.files import refuse_special
from cellrt.runtime.decoding.star.harmonics import (
    HIGHEST_ORDER,
    coefficient_count,
    coefficient_names,
)
from cellrt.runtime.decoding.star.radii import FLAGS
from cellrt.runtime.decoding.star.shapes import Shapes
from cellrt.runtime.image.voxel_size import check_voxel_size
from cellrt.runtime.results.table import CellTable

_COEFFICIENT = re.compile(r"c_(\d+)_(-?\d+)_(um|voxels)")
# Of label files, which have 32 bits.
_LARGEST_ID = 2**32 - 1
_LARGEST_IMAGE = 2**31 - 1
_MOST_VOXELS = 1e12
_MADE_BY = "a table of `cellrt encode`"


def shape_table(shapes: Shapes) -> CellTable:
    """What describes cells, one row for each.

    Returns
    -------
    CellTable
        Columns, with u as the unit of lengths (``um`` or ``voxels``):

        - ``id``;
        - ``centre_{z,y,x}_u``: from the centre of the image's first voxel;
        - ``border``, ``hole``, ``split``, ``single_voxel``, ``centre_moved``: 1 or 0, see
          :data:`cellrt.runtime.decoding.star.radii.FLAGS`;
        - ``misplaced_share``: volume that radii put on the wrong side of the border, as a
          share of the cell's, as it is not star-convex;
        - ``power_L_u2``: power of degree L, which no rotation changes;
        - ``c_L_M_u``: coefficient of degree L with M from -L to L;
        - ``voxel_size_{z,y,x}_u`` and ``image_{z,y,x}_voxels``: of the image, in every row.
    """
    unit, count = shapes.unit, len(shapes)
    columns: dict[str, NDArray[Any]] = {"id": shapes.ids}
    columns.update(zip(_centres(unit), shapes.centres.T, strict=True))
    columns.update(zip(FLAGS, shapes.flags.T.astype(np.int64), strict=True))
    columns["misplaced_share"] = shapes.misplaced_share
    for degree, power in enumerate(shapes.power.T):
        columns[f"power_{degree}_{unit}2"] = power
    columns.update(zip(_coefficients(shapes.order, unit), shapes.coefficients.T, strict=True))
    for name, length in zip(_voxel_sizes(unit), shapes.voxel_size, strict=True):
        columns[name] = np.full(count, length)
    for name, voxels in zip(_IMAGE, shapes.image_shape, strict=True):
        columns[name] = np.full(count, voxels)
    return CellTable(columns, unit)


def read_shapes(path: Path) -> Shapes:
    """Read a table that `shape_table` gave; rows may be left out, and columns added.

    Flags and shares of misplaced volume may be missing, as no voxel depends on them.

    Raises
    ------
    InputError
        No such file, none of text, a column that is missing or there twice, a value that is no
        number or makes no sense, no cells, or cells of several images.
    """
    header, rows = _read(path)
    unit, order = _what_it_holds(path.name, header)
    sizes = _voxel_sizes(unit)
    wanted = ["id", *_centres(unit), *_coefficients(order, unit), *sizes, *_IMAGE]
    for name in wanted:
        if header.count(name) != 1:
            _refuse_column(path.name, name, twice=name in header)
    if not rows:
        raise InputError(
            f"{path.name} holds no cells and so does not say how large the image is; give a table "
            "with at least one"
        )
    values = {name: _numbers(path.name, name, header.index(name), rows) for name in wanted}
    (mean,) = _coefficients(0, unit)
    without = np.flatnonzero(values[mean] <= 0)
    if without.size:
        raise InputError(
            f"{path.name}: row {without[0] + 1}, column {mean} is {values[mean][without[0]]:g}; "
            "expected more than 0, as it is the mean radius times 3.54"
        )
    flags = np.zeros((len(rows), len(FLAGS)), np.bool_)
    for k, name in enumerate(FLAGS):
        if name in header:
            flags[:, k] = _numbers(path.name, name, header.index(name), rows) != 0
    lost = np.zeros(len(rows))
    if "misplaced_share" in header:
        lost = _numbers(path.name, "misplaced_share", header.index("misplaced_share"), rows)
    ids = _whole(path.name, "id", values["id"], _LARGEST_ID)
    found, times = np.unique(ids, return_counts=True)
    if found.size != ids.size:
        raise InputError(
            f"{path.name}: the id {found[times > 1][0]} occurs {times.max()} times; expected one "
            "row for each cell"
        )
    nz, ny, nx = (
        _same(path.name, name, _whole(path.name, name, values[name], _LARGEST_IMAGE))
        for name in _IMAGE
    )
    if nz * ny * nx > _MOST_VOXELS:
        raise InputError(
            f"{path.name}: {', '.join(_IMAGE)} are {nz:.0f}, {ny:.0f} and {nx:.0f}; expected the "
            f"size of an image, of at most {_MOST_VOXELS:.0e} voxels"
        )
    z, y, x = (_same(path.name, name, values[name]) for name in sizes)
    try:
        check_voxel_size((z, y, x))
    except UsageError as error:
        raise InputError(
            f"{path.name}: {', '.join(sizes)} are {z:g}, {y:g} and {x:g}; expected sizes that a "
            "voxel can have"
        ) from error
    diagonal = math.hypot(nz * z, ny * y, nx * x)
    beyond = np.flatnonzero(values[mean] > math.sqrt(4 * math.pi) * diagonal)
    if beyond.size:
        raise InputError(
            f"{path.name}: row {beyond[0] + 1}, column {mean} is {values[mean][beyond[0]]:g}, a "
            "mean radius that is longer than the whole image"
        )
    return Shapes(
        ids=ids,
        centres=np.stack([values[name] for name in _centres(unit)], axis=1),
        coefficients=np.stack([values[name] for name in _coefficients(order, unit)], axis=1),
        voxel_size=(z, y, x),
        image_shape=(int(nz), int(ny), int(nx)),
        unit=unit,
        flags=flags,
        misplaced_share=lost,
    )


_IMAGE = ("image_z_voxels", "image_y_voxels", "image_x_voxels")


def _centres(unit: str) -> list[str]:
    return [f"centre_{axis}_{unit}" for axis in "zyx"]


def _voxel_sizes(unit: str) -> list[str]:
    return [f"voxel_size_{axis}_{unit}" for axis in "zyx"]


def _coefficients(order: int, unit: str) -> list[str]:
    """Names of the coefficients' columns, in their order."""
    return [f"{name}_{unit}" for name in coefficient_names(order)]


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and rows of as many values."""
    refuse_special(path, f"give {_MADE_BY}")
    try:
        # Spreadsheets write a mark before the first name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give {_MADE_BY}") from None
    except UnicodeDecodeError as error:  # of a label image, say
        raise InputError(f"{path} cannot be read (it is no text); give {_MADE_BY}") from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path} cannot be read ({reason}); give {_MADE_BY}") from error
    if not lines:
        raise InputError(f"{path.name} is empty; expected {_MADE_BY}")
    header = [name.strip() for name in lines[0]]
    if len(header) == 1 and ";" in header[0]:
        raise InputError(
            f"{path.name} has columns separated by semicolons; save it with commas between them "
            "and points in numbers"
        )
    for number, row in enumerate(lines[1:], start=1):
        if len(row) != len(header):
            raise InputError(
                f"{path.name}: row {number} has {len(row)} values and the header "
                f"{len(header)} names; expected {_MADE_BY}"
            )
    return header, lines[1:]


def _what_it_holds(file: str, header: Sequence[str]) -> tuple[Literal["um", "voxels"], int]:
    """Unit of lengths and highest degree, by the coefficients that there are."""
    found = [match for name in header if (match := _COEFFICIENT.fullmatch(name))]
    if not found:
        _refuse_column(file, "c_0_0_um", twice=False)
    units = sorted({match[3] for match in found})
    if len(units) > 1:
        raise InputError(
            f"{file} has coefficients in {' and in '.join(units)}; expected one unit of length"
        )
    for match in found:
        degree, m = int(match[1]), int(match[2])
        if degree > HIGHEST_ORDER or abs(m) > degree:
            raise InputError(
                f"{file}: the column {match[0]} is no coefficient that there is; expected degrees "
                f"up to {HIGHEST_ORDER}, each with its orders from minus to plus the degree"
            )
    # Of order 0 only: a sphere, which `encode` never writes; its next columns are missing.
    order = max(1, *(int(match[1]) for match in found))
    return ("um" if units[0] == "um" else "voxels"), order


def _refuse_column(file: str, name: str, *, twice: bool) -> NoReturn:
    count = coefficient_count(5)
    wrong = f"has the column {name} twice" if twice else f"has no column {name}"
    raise InputError(
        f"{file} {wrong}; expected {_MADE_BY}: id, centre_z_um, ..., c_0_0_um and all other "
        f"coefficients ({count} of order 5), voxel_size_z_um, ... and image_z_voxels, ..."
    )


def _numbers(
    file: str, name: str, column: int, rows: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    values = np.empty(len(rows))
    for k, row in enumerate(rows):
        try:
            values[k] = float(row[column])
        except ValueError:
            values[k] = math.nan
        if not math.isfinite(values[k]):
            raise InputError(
                f"{file}: row {k + 1}, column {name} is {row[column]!r}; expected a number"
            )
    return values


def _whole(file: str, name: str, values: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    wrong = (values != np.round(values)) | (values < 1) | (values > largest)
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{file}: row {k + 1}, column {name} is {values[k]:g}; expected a whole number from 1 "
            f"to {largest}"
        )
    return values.astype(np.int64)


def _same(file: str, name: str, values: NDArray[np.int64] | NDArray[np.float64]) -> float:
    other = values != values[0]
    if other.any():
        k = int(np.flatnonzero(other)[0])
        raise InputError(
            f"{file}: column {name} is {values[0]:g} in row 1 and {values[k]:g} in row {k + 1}; "
            "expected the cells of one image"
        )
    return float(values[0])
