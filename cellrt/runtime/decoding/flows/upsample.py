"""Labels on a grid of another resolution: decoded again, where enlarging would leave steps.

A voxel of the target grid knows its cell without a long walk: foreground and flow are interpolated
at its position, one step along the flow leads away from the border into the cell, and there the
labels of the model's grid say which cell it is.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.errors import InputError
from cellrt.geometry import Shape
from cellrt.runtime.decoding.flows.packed_field import PackedField, threshold_byte
from cellrt.threads import in_threads

MOST_VOXELS = 2**33  # sums of weights, bytes and steps stay below 2**63


def upsample_labels(
    labels: npt.NDArray[np.int32],
    packed: PackedField,
    shape: Shape,
    *,
    step: float,
    threshold: float,
    walls: bool,
) -> npt.NDArray[np.int32]:
    """Labels on a grid that covers the same volume with other voxels.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Cells on the model's grid.
    packed : (z, y, x) uint32 array
        The field they were decoded from.
    shape : (int, int, int)
        Shape of the result; voxel ``i`` lies at ``(i + 0.5) * scale - 0.5`` of the model grid.
    step : float
        Step along the flow in voxels of the model's grid.
    threshold : float
        Lowest foreground probability inside a cell.
    walls : bool
        Whether voxels below the threshold may belong to cells (filled walls); they take the label
        of the nearest voxel of the model's grid.

    Returns
    -------
    (z, y, x) int32 array of the given shape

    Raises
    ------
    InputError
        More than 2**33 voxels.
    """
    check_size(shape)
    result = np.empty(shape, np.int32)
    axes = [grid_places(n, m) for n, m in zip(labels.shape, shape, strict=True)]
    options = (step_units(step), np.int64(threshold_byte(threshold)), np.int64(walls))
    work = partial(_upsample, labels, packed, result, *axes, options)
    in_threads(shape[0] * shape[1], work, voxels=result.size)
    return result


def check_size(shape: Shape) -> None:
    """Refuse a target grid whose sums of weights would not fit into 64 bits."""
    if math.prod(shape) > MOST_VOXELS:
        raise InputError(
            f"the labels would have {math.prod(shape)} voxels; at most {MOST_VOXELS} can be "
            "computed at once: cut the stack into blocks"
        )


def grid_places(count: int, fine: int) -> npt.NDArray[np.int64]:
    """Where the voxels of an axis of the target grid lie on the model's, in whole numbers.

    Whole numbers are exact, so that no device rounds otherwise than another.

    Parameters
    ----------
    count, fine : int
        Voxels along the axis on the model's and on the target grid.

    Returns
    -------
    (fine, 2) int64 array
        The voxel before each place, and how far behind it the place is, in units of 1 / (2 * fine).
    """
    unit = 2 * fine
    place = (2 * np.arange(fine, dtype=np.int64) + 1) * count - fine
    place = np.clip(place, 0, (count - 1) * unit)
    before = np.minimum(place // unit, max(count - 2, 0))
    return np.stack([before, place - before * unit], axis=1)


def step_units(step: float) -> np.int64:
    """Step in units of 2**-16 voxels per unit of a flow byte."""
    units: np.int64 = np.int64(round(step * 65536.0 / 127.0))
    return units


@compiled
def _upsample(
    labels: Any,
    packed: Any,
    result: Any,
    along_z: Any,
    along_y: Any,
    along_x: Any,
    options: Any,
    lo: int,
    hi: int,
) -> None:
    least = options[1]
    for row in range(lo, hi):
        z, y = row // result.shape[1], row % result.shape[1]
        before = np.int64(-1)
        label = np.int32(-1)
        for x in range(result.shape[2]):
            if along_x[x, 0] != before:
                before = along_x[x, 0]
                label = _certain(labels, packed, along_z[z, 0], along_y[y, 0], before, least)
            if label >= 0:
                result[z, y, x] = label
            else:
                result[z, y, x] = label_at(
                    labels, packed, along_z, along_y, along_x, options, z, y, x
                )


@compiled
def _certain(labels: Any, packed: Any, z0: int, y0: int, x0: int, least: Any) -> Any:
    """What `label_at` finds everywhere between eight voxels that are alike; -1 where they differ.

    Alike are those of the background, and those of one cell that are all above the threshold.
    """
    nz, ny, nx = labels.shape
    label = labels[z0, y0, x0]
    for z in range(z0, min(z0 + 2, nz)):
        for y in range(y0, min(y0 + 2, ny)):
            for x in range(x0, min(x0 + 2, nx)):
                if labels[z, y, x] != label:
                    return np.int32(-1)
                if label != 0 and np.int64(packed[z, y, x] >> np.uint32(24)) < least:
                    return np.int32(-1)
    return label


@compiled
def label_at(
    labels: Any,
    packed: Any,
    along_z: Any,
    along_y: Any,
    along_x: Any,
    options: Any,
    oz: int,
    oy: int,
    ox: int,
) -> Any:
    """Label of one voxel of the target grid."""
    step, least, walls = options
    nz, ny, nx = labels.shape
    byte = np.uint32(255)
    z0, fz = along_z[oz, 0], along_z[oz, 1]
    y0, fy = along_y[oy, 0], along_y[oy, 1]
    x0, fx = along_x[ox, 0], along_x[ox, 1]
    dz = 2 * along_z.shape[0]
    dy = 2 * along_y.shape[0]
    dx = 2 * along_x.shape[0]
    z1, y1, x1 = min(z0 + 1, nz - 1), min(y0 + 1, ny - 1), min(x0 + 1, nx - 1)
    corners = 8 if z1 > z0 else 4  # in one slice nothing lies beyond
    first = labels[z0, y0, x0]
    alike = True
    for k in range(1, corners):
        label = labels[z1 if k >> 2 else z0, y1 if (k >> 1) & 1 else y0, x1 if k & 1 else x0]
        alike = alike and label == first
    if alike and first == 0:
        return first
    nearest = first
    near_cell = np.int32(0)
    heaviest = heaviest_cell = chance = np.int64(0)
    for k in range(corners):
        z, wz = (z1, fz) if k >> 2 else (z0, dz - fz)
        y, wy = (y1, fy) if (k >> 1) & 1 else (y0, dy - fy)
        x, wx = (x1, fx) if k & 1 else (x0, dx - fx)
        weight = wz * wy * wx
        chance += weight * np.int64(packed[z, y, x] >> np.uint32(24))
        label = labels[z, y, x]
        if weight > heaviest:
            heaviest, nearest = weight, label
        if label != 0 and weight > heaviest_cell:
            heaviest_cell, near_cell = weight, label
    whole = np.int64(dz) * dy * dx
    if chance < least * whole:
        return nearest if walls else np.int32(0)
    if alike:
        return first
    gz = gy = gx = np.int64(0)
    for k in range(corners):
        z, wz = (z1, fz) if k >> 2 else (z0, dz - fz)
        y, wy = (y1, fy) if (k >> 1) & 1 else (y0, dy - fy)
        x, wx = (x1, fx) if k & 1 else (x0, dx - fx)
        weight = wz * wy * wx
        word = packed[z, y, x]
        gz += weight * (np.int64((word >> np.uint32(16)) & byte) - 128)
        gy += weight * (np.int64((word >> np.uint32(8)) & byte) - 128)
        gx += weight * (np.int64(word & byte) - 128)
    # Half a voxel is added, so that places are rounded to the next voxel.
    tz = (z0 * 65536 + fz * 65536 // dz + step * gz // whole + 32768) >> 16
    ty = (y0 * 65536 + fy * 65536 // dy + step * gy // whole + 32768) >> 16
    tx = (x0 * 65536 + fx * 65536 // dx + step * gx // whole + 32768) >> 16
    found = labels[
        min(max(tz, 0), nz - 1),
        min(max(ty, 0), ny - 1),
        min(max(tx, 0), nx - 1),
    ]
    if found != 0:
        # The step may leave a thin cell; only a cell that is near can be the right one.
        for k in range(corners):
            z, y, x = z1 if k >> 2 else z0, y1 if (k >> 1) & 1 else y0, x1 if k & 1 else x0
            if labels[z, y, x] == found:
                return found
    return nearest if nearest != 0 else near_cell
