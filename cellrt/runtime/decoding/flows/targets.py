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

from cellrt.compiled import compiled
from cellrt.geometry import axis_lines, canonical_labels
from cellrt.runtime.decoding.flows.targets_by_cell import centroid_box, heat_box
from cellrt.runtime.decoding.labels.regions import bounding_boxes
from cellrt.threads import in_threads

FloatArray = npt.NDArray[np.float32]

TANH_GAIN = 2.0
"""Argument of tanh at a cell's boundary: |g| is about 0.96 there and falls to 0 at the centre."""

LONGEST_TABULATED_RUN = 512

CENTROID_SCALE_VOXELS = 5.0
"""Fixed length of the centroid formulation, as in the published code."""


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
    table = tanh_table(labels.shape)
    flat = labels.reshape(-1)
    for axis, (outer, *lines) in enumerate(axis_lines(labels.shape)):
        component = flow[axis].reshape(-1)

        def part(lo: int, hi: int, component: Any = component, lines: Any = lines) -> None:
            start = np.empty(lines[2], np.int64)
            _tanh_lines(flat, component, table, start, *lines, lo, hi)

        in_threads(outer, part, voxels=labels.size)
    return flow


def centroid_flow(
    labels: npt.NDArray[np.integer[Any]], scale_voxels: float = CENTROID_SCALE_VOXELS
) -> FloatArray:
    """Signed distance to the cell's centroid per axis, divided by a fixed length, through tanh.

    The form used by the published Cellpose3D code, with the sign of this project: component k is
    ``tanh((centroid_k - x_k) / scale_voxels)``.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Label image; 0 (and anything negative) is background.
    scale_voxels : float
        Distance in voxels at which the flow reaches tanh(1) = 0.76.

    Returns
    -------
    (3, z, y, x) float32 array
        Components along z, y, x in (-1, 1); 0 in the background.

    Raises
    ------
    InputError
        If `labels` is not a three-dimensional integer array.
    """
    return _per_cell(labels, partial(_centroid_cells, scale_voxels=scale_voxels))


def heat_flow(labels: npt.NDArray[np.integer[Any]]) -> FloatArray:
    """Normalised gradient of heat that diffuses from the middle of each cell.

    One unit of heat enters at the cell's medoid (its voxel nearest to the centroid) in every
    iteration, spreads to the six neighbours and is lost outside of the cell. The gradient of the
    heat, scaled to length 1, leads around corners of non-convex cells, which line runs and
    centroids do not. There are as many iterations as the edges of the cell's bounding box sum up
    to, about twice the longest way from the middle of a convex cell.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Label image; 0 (and anything negative) is background.

    Returns
    -------
    (3, z, y, x) float32 array
        Unit vectors, components along z, y, x; 0 in the background, at the medoid of a symmetric
        cell, and in parts of a cell that no path inside it connects to the medoid.

    Raises
    ------
    InputError
        If `labels` is not a three-dimensional integer array.
    """
    return _per_cell(labels, _heat_cells)


def _per_cell(labels: npt.NDArray[np.integer[Any]], kernel: Any) -> FloatArray:
    """Fill a flow field cell by cell, each inside its bounding box."""
    cells = canonical_labels(labels)
    flow = np.zeros((3, *cells.shape), np.float32)
    if not cells.size or cells.max() <= 0:
        return flow
    if cells.max() > cells.size:
        # Tables are indexed by label: ids beyond any sensible count are renumbered first.
        ids, dense = np.unique(np.maximum(cells, 0), return_inverse=True)
        cells = (dense.reshape(cells.shape) + (ids[0] > 0)).astype(np.int32)
    count = int(cells.max())
    boxes = bounding_boxes(cells, count)
    in_threads(count, partial(kernel, cells, boxes, flow), voxels=cells.size)
    return flow


def tanh_table(shape: tuple[int, ...]) -> FloatArray:
    """Flow in runs of 1, 2, 3, ... voxels; the run of n voxels starts at n * (n - 1) / 2."""
    lengths = np.arange(1, min(max(shape), LONGEST_TABULATED_RUN) + 1, dtype=np.int64)
    length = np.repeat(lengths, lengths)
    position = np.arange(length.size) - length * (length - 1) // 2
    relative = ((length - 1) - 2 * position) / length
    table: FloatArray = np.tanh(TANH_GAIN * relative).astype(np.float32)
    return table


@compiled
def _run_flow(table: Any, n: int, k: int) -> Any:
    """Tanh flow of the k-th of n voxels of a run."""
    entry = n * (n - 1) // 2 + k
    if entry < table.size:
        return table[entry]
    return np.float32(np.tanh(TANH_GAIN * ((n - 1) - 2 * k) / n))


@compiled
def _tanh_lines(
    labels: Any,
    out: Any,
    table: Any,
    start: Any,
    outer_stride: int,
    line_count: int,
    line_stride: int,
    inner_count: int,
    inner_stride: int,
    lo: int,
    hi: int,
) -> None:
    for outer in range(lo, hi):
        base = outer * outer_stride
        for j in range(inner_count):
            start[j] = 0
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
                for k in range(n):
                    out[at] = _run_flow(table, n, k) if label > 0 else np.float32(0.0)
                    at += line_stride


@compiled
def _place(flow: Any, box: Any, part: Any, inside: Any) -> None:
    for axis in range(3):
        for z in range(inside.shape[0]):
            for y in range(inside.shape[1]):
                for x in range(inside.shape[2]):
                    if inside[z, y, x]:
                        flow[axis, box[0] + z, box[2] + y, box[4] + x] = part[axis, z, y, x]


@compiled
def _centroid_cells(
    labels: Any, boxes: Any, flow: Any, lo: int, hi: int, scale_voxels: float
) -> None:
    for label in range(lo + 1, hi + 1):
        box = boxes[label]
        if box[1] > box[0]:
            inside = labels[box[0] : box[1], box[2] : box[3], box[4] : box[5]] == label
            _place(flow, box, centroid_box(inside, scale_voxels), inside)


@compiled
def _heat_cells(labels: Any, boxes: Any, flow: Any, lo: int, hi: int) -> None:
    for label in range(lo + 1, hi + 1):
        box = boxes[label]
        if box[1] > box[0]:
            inside = labels[box[0] : box[1], box[2] : box[3], box[4] : box[5]] == label
            _place(flow, box, heat_box(inside), inside)
