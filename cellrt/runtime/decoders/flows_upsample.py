"""Labels on a grid of another resolution: decoded again, where enlarging would leave steps.

A voxel of the target grid knows its cell without a long walk: foreground and flow are interpolated
at its position, one step along the flow leads away from the border into the cell, and there the
labels of the model's grid say which cell it is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.decoders.flows_trace import PackedField, threshold_byte
from cellrt.runtime.threads import in_threads

Shape = tuple[int, int, int]


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
    """
    result = np.zeros(shape, np.int32)
    scale = [n / m for n, m in zip(labels.shape, shape, strict=True)]
    work = partial(
        _upsample,
        labels,
        packed,
        result,
        scale[0],
        scale[1],
        scale[2],
        step / 127.0,
        float(threshold_byte(threshold)),
        walls,
    )
    in_threads(shape[0], work, voxels=result.size)
    return result


@njit(cache=True, nogil=True)
def _upsample(
    labels: Any,
    packed: Any,
    result: Any,
    sz: float,
    sy: float,
    sx: float,
    gain: float,
    least: float,
    walls: bool,
    lo: int,
    hi: int,
) -> None:
    nz, ny, nx = labels.shape
    byte = np.uint32(255)
    corner = np.empty(8, np.int32)
    weight = np.empty(8, np.float64)
    for oz in range(lo, hi):
        pz = min(max((oz + 0.5) * sz - 0.5, 0.0), nz - 1.0)
        z0 = min(int(pz), max(nz - 2, 0))
        for oy in range(result.shape[1]):
            py = min(max((oy + 0.5) * sy - 0.5, 0.0), ny - 1.0)
            y0 = min(int(py), max(ny - 2, 0))
            for ox in range(result.shape[2]):
                px = min(max((ox + 0.5) * sx - 0.5, 0.0), nx - 1.0)
                x0 = min(int(px), max(nx - 2, 0))
                chance = gz = gy = gx = 0.0
                known = 0
                for k in range(8):
                    z = min(z0 + (k >> 2), nz - 1)
                    y = min(y0 + ((k >> 1) & 1), ny - 1)
                    x = min(x0 + (k & 1), nx - 1)
                    w = (
                        (1.0 - abs(pz - (z0 + (k >> 2))))
                        * (1.0 - abs(py - (y0 + ((k >> 1) & 1))))
                        * (1.0 - abs(px - (x0 + (k & 1))))
                    )
                    word = packed[z, y, x]
                    chance += w * (word >> np.uint32(24))
                    gz += w * (np.float64((word >> np.uint32(16)) & byte) - 128.0)
                    gy += w * (np.float64((word >> np.uint32(8)) & byte) - 128.0)
                    gx += w * (np.float64(word & byte) - 128.0)
                    corner[k] = labels[z, y, x]
                    weight[k] = w
                    known += corner[k] != 0
                if known == 0:
                    continue
                nearest = corner[np.argmax(weight)]
                if chance < least:
                    if walls:
                        result[oz, oy, ox] = nearest
                    continue
                first = corner[0]
                same = known == 8
                for k in range(1, 8):
                    same = same and corner[k] == first
                if same:
                    result[oz, oy, ox] = first
                    continue
                tz = min(max(int(np.floor(pz + gain * gz + 0.5)), 0), nz - 1)
                ty = min(max(int(np.floor(py + gain * gy + 0.5)), 0), ny - 1)
                tx = min(max(int(np.floor(px + gain * gx + 0.5)), 0), nx - 1)
                found = labels[tz, ty, tx]
                # The step may leave a thin cell; only a cell that is near can be the right one.
                present = False
                for k in range(8):
                    present = present or (corner[k] == found and found != 0)
                if not present:
                    found = nearest
                    if found == 0:
                        heaviest = 0.0
                        for k in range(8):
                            if corner[k] != 0 and weight[k] > heaviest:
                                heaviest = weight[k]
                                found = corner[k]
                result[oz, oy, ox] = found
