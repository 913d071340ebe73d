"""Flow fields computed from label images: training targets and the decoder's flow-error filter.

Every field has shape (3, z, y, x), component k belongs to axis k, values lie in [-1, 1], vectors
point TOWARDS the cell's centre and background is 0. Three formulations exist:

- ``tanh_flow``: relative signed distance between the two boundaries of the cell on each axis line;
- ``centroid_flow``: signed distance to the centroid, squashed with a fixed length;
- ``heat_flow``: normalised gradient of heat that diffuses from a voxel in the cell's middle.

References
----------
Eschweiler et al., "Robust 3D Cell Segmentation: Extending the View of Cellpose", 2021
(fig. 1: gradient fields by tanh of relative distances, or by heat diffusion).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.errors import InputError
from cellrt.runtime.threads import in_threads

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int32]

TANH_GAIN = 2.0
"""Argument of tanh at a cell's boundary: |g| is about 0.96 there and falls to 0 at the centre."""

_LONGEST_TABULATED_RUN = 256


def tanh_flow(labels: npt.NDArray[np.integer[Any]]) -> FloatArray:
    """Relative distance to the middle between a cell's two boundaries, per axis, through tanh.

    On each axis line the voxels of one contiguous run of the same label, from index a to b, get
    ``tanh(TANH_GAIN * (c - x) / h)`` with ``c = (a + b) / 2`` and ``h = (b - a + 1) / 2``.
    A non-convex cell may have several runs on a line; each run points to its own middle.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Label image; 0 (and anything negative) is background.

    Returns
    -------
    (3, z, y, x) float32 array
        Components along z, y, x in (-1, 1); 0 in the background.

    Raises
    ------
    InputError
        If `labels` is not a three-dimensional integer array.
    """
    labels = canonical_labels(labels)
    flow = np.empty((3, *labels.shape), np.float32)
    if labels.size == 0:
        return flow
    nz, ny, nx = labels.shape
    table = _tanh_table(min(max(labels.shape), _LONGEST_TABULATED_RUN))
    flat = labels.reshape(-1)
    # (outer count, outer stride, line length, line stride, inner count, inner stride): the inner
    # loop walks along memory, so that lines along z and y are read as fast as lines along x.
    geometry = (
        (ny, nx, nz, ny * nx, nx, 1),
        (nz, ny * nx, ny, nx, nx, 1),
        (nz * ny, nx, nx, 1, 1, 1),
    )
    for axis, (outer, *rest) in enumerate(geometry):
        component = flow[axis].reshape(-1)
        in_threads(
            outer,
            partial(_tanh_lines, flat, component, table, *rest),
            voxels=labels.size,
        )
    return flow


def canonical_labels(labels: npt.NDArray[np.integer[Any]]) -> LabelArray:
    """Return `labels` as a C-contiguous int32 (z, y, x) array, without a copy where it is one."""
    array = np.asarray(labels)
    if array.ndim != 3 or array.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {array.shape} and type {array.dtype}; "
            "expected a three-dimensional integer array (z, y, x)"
        )
    return np.ascontiguousarray(array, dtype=np.int32)


def _tanh_table(longest: int) -> FloatArray:
    """Values of all runs of 1 to `longest` voxels; run n starts at n * (n - 1) / 2."""
    length = np.repeat(np.arange(1, longest + 1), np.arange(1, longest + 1))
    position = np.arange(length.size) - length * (length - 1) // 2
    relative = ((length - 1) - 2 * position) / length
    table: FloatArray = np.tanh(TANH_GAIN * relative).astype(np.float32)
    return table


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tanh_lines(
    labels: Any,
    out: Any,
    table: Any,
    outer_stride: int,
    line_count: int,
    line_stride: int,
    inner_count: int,
    inner_stride: int,
    lo: int,
    hi: int,
) -> None:
    longest = int((np.sqrt(8.0 * table.size + 1.0) - 1.0) / 2.0 + 0.5)
    start = np.zeros(inner_count, np.int64)
    for outer in range(lo, hi):
        base = outer * outer_stride
        start[:] = 0
        for i in range(line_count):
            for j in range(inner_count):
                here = base + i * line_stride + j * inner_stride
                label = labels[here]
                if i + 1 < line_count and labels[here + line_stride] == label:
                    continue
                first = start[j]
                start[j] = i + 1
                n = i - first + 1
                at = base + first * line_stride + j * inner_stride
                if label <= 0:
                    for _ in range(n):
                        out[at] = 0.0
                        at += line_stride
                elif n <= longest:
                    entry = n * (n - 1) // 2
                    for k in range(n):
                        out[at] = table[entry + k]
                        at += line_stride
                else:
                    for k in range(n):
                        out[at] = np.tanh(TANH_GAIN * ((n - 1) - 2 * k) / n)
                        at += line_stride
