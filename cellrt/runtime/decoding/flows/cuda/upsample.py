"""Labels on another grid, on a GPU: each thread decodes voxels of the target grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from cellrt.runtime.decoding.flows.packed_field import threshold_byte
from cellrt.runtime.decoding.flows.upsample import check_size, grid_places, label_at, step_units
from cellrt.runtime.machine.kernels import (
    device_function,
    empty,
    kernel,
    launch,
    place_of,
    to_device,
)

_label_at = device_function(label_at)


def upsample_labels(
    labels: Any,
    packed: Any,
    shape: tuple[int, int, int],
    *,
    step: float,
    threshold: float,
    walls: bool,
) -> Any:
    """Labels on a grid that covers the same volume with other voxels, on the device."""
    check_size(shape)
    result = empty(shape, np.int32)
    axes = [to_device(grid_places(n, m)) for n, m in zip(labels.shape, shape, strict=True)]
    options = (step_units(step), np.int64(threshold_byte(threshold)), np.int64(walls))
    launch(_upsample, result.size, labels, packed, result, *axes, options)
    return result


@kernel
def _upsample(
    labels: Any, packed: Any, result: Any, along_z: Any, along_y: Any, along_x: Any, options: Any
) -> None:
    _, ny, nx = result.shape
    here = cuda.grid(1)
    while here < result.size:
        z, y, x = place_of(here, ny, nx)
        result[z, y, x] = _label_at(labels, packed, along_z, along_y, along_x, options, z, y, x)
        here += cuda.gridsize(1)
