"""Flow errors on a GPU, for the tanh target: each thread takes one line of voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from cellrt.geometry import axis_lines
from cellrt.runtime.decoding.flows.flow_error import Errors, run_error, tanh_errors, tanh_units
from cellrt.runtime.machine.kernels import device_function, kernel, launch, to_device, zeros

_run_error = device_function(run_error)


def tanh_flow_errors(labels: Any, packed: Any, volumes: npt.NDArray[np.int64]) -> Errors:
    """Mean difference between each label's own tanh flow and the predicted one, on the host."""
    sums = zeros(volumes.size, np.int64)
    table = to_device(tanh_units(labels.shape))
    voxels = (labels.reshape(labels.size), packed.reshape(labels.size))
    for axis, lines in enumerate(axis_lines(labels.shape)):
        shift = np.uint32(16 - 8 * axis)
        launch(_add_line_errors, lines[0] * lines[4], *voxels, shift, table, lines, sums)
    return tanh_errors(sums.copy_to_host(), volumes)


@kernel
def _add_line_errors(
    labels: Any, packed: Any, shift: Any, table: Any, lines: Any, sums: Any
) -> None:
    outer_count, outer_stride, length, stride, inner_count, inner_stride = lines
    line = cuda.grid(1)
    while line < outer_count * inner_count:
        base = line // inner_count * outer_stride + line % inner_count * inner_stride
        first = 0
        for i in range(length):
            label = labels[base + i * stride]
            if i + 1 < length and labels[base + (i + 1) * stride] == label:
                continue
            if label != 0:
                at = base + first * stride
                error = _run_error(packed, shift, table, at, stride, i - first + 1)
                cuda.atomic.add(sums, label, error)
            first = i + 1
        line += cuda.gridsize(1)
