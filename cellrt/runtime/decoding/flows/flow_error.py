"""How far the flow of each found cell is from the flow that the network predicted.

A cell that is really there has the flow of its own shape. The published filter recomputes each
instance's flow and drops the instance where the mean absolute difference is large.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.geometry import axis_lines
from cellrt.runtime.decoding.flows.packed_field import PackedField
from cellrt.runtime.decoding.flows.targets import (
    CENTROID_SCALE_VOXELS,
    LONGEST_TABULATED_RUN,
    tanh_table,
)
from cellrt.runtime.decoding.flows.targets_by_cell import centroid_box, heat_box
from cellrt.runtime.decoding.labels.regions import bounding_boxes
from cellrt.threads import in_threads

Errors = npt.NDArray[np.float64]

_UNITS = 127 * 256  # a flow of 1


def flow_errors(
    labels: npt.NDArray[np.int32],
    packed: PackedField,
    volumes: npt.NDArray[np.int64],
    target: str,
) -> Errors:
    """Mean absolute difference between each label's own flow and the predicted flow.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Labels from 1 to n.
    packed : (z, y, x) uint32 array
        The predicted field.
    volumes : (n + 1,) int64 array
        Voxels of each label.
    target : {"tanh", "centroid", "heat"}
        Formulation the network was trained on.

    Returns
    -------
    (n + 1,) float64 array
        Mean over the voxels and the three components, 0 to 2; 0 for absent labels.
    """
    count = volumes.size - 1
    if target == "tanh":
        return tanh_errors(_tanh_sums(labels, packed, count), volumes)
    boxes = bounding_boxes(labels, count)
    kernel = _heat_sums if target == "heat" else _centroid_sums
    work = partial(kernel, labels, packed, boxes)
    sums = np.sum(in_threads(count, work, voxels=labels.size), axis=0)
    errors: Errors = sums / (3.0 * np.maximum(volumes, 1))
    return errors


def tanh_errors(sums: npt.NDArray[np.int64], volumes: npt.NDArray[np.int64]) -> Errors:
    """Mean errors from sums in units of 1 / (127 * 256)."""
    errors: Errors = sums / (_UNITS * 3.0 * np.maximum(volumes, 1))
    return errors


def tanh_units(shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Flow in runs, in whole units; see :func:`~cellrt.runtime.decoding.flows.targets.tanh_table`.

    With integers, sums do not depend on the order in which threads add.
    """
    units: npt.NDArray[np.int32] = np.rint(tanh_table(shape) * np.float64(_UNITS)).astype(np.int32)
    return units


def _tanh_sums(
    labels: npt.NDArray[np.int32], packed: PackedField, count: int
) -> npt.NDArray[np.int64]:
    flat = labels.reshape(-1)
    table = tanh_units(labels.shape)
    total = np.zeros(count + 1, np.int64)
    for axis, (outer, *lines) in enumerate(axis_lines(labels.shape)):
        shift = np.uint32(16 - 8 * axis)

        def part(lo: int, hi: int, shift: Any = shift, lines: Any = lines) -> Any:
            sums = np.zeros(count + 1, np.int64)
            start = np.empty(lines[2], np.int64)
            _tanh_line_sums(flat, packed.reshape(-1), shift, table, sums, start, *lines, lo, hi)
            return sums

        total += np.sum(in_threads(outer, part, voxels=flat.size), axis=0)
    return total


@compiled
def _tanh_line_sums(
    labels: Any,
    packed: Any,
    shift: Any,
    table: Any,
    sums: Any,
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
                if label != 0:
                    at = base + first * line_stride + j * inner_stride
                    sums[label] += run_error(packed, shift, table, at, line_stride, i - first + 1)


@compiled
def run_error(packed: Any, shift: Any, table: Any, at: int, stride: int, n: int) -> Any:
    """Error along a run of `n` voxels of one label, in units of 1 / (127 * 256)."""
    total = np.int64(0)
    # Beyond the table, the flow of its longest run is stretched.
    length = min(n, LONGEST_TABULATED_RUN)
    row = length * (length - 1) // 2
    for k in range(n):
        own = table[row + (k if n == length else k * length // n)]
        predicted = (np.int32((packed[at] >> shift) & np.uint32(255)) - 128) * 256
        total += abs(predicted - own)
        at += stride
    return total


@compiled
def _box_sum(packed: Any, box: Any, flow: Any, inside: Any) -> float:
    total = 0.0
    for axis in range(3):
        shift = np.uint32(16 - 8 * axis)
        for z in range(inside.shape[0]):
            for y in range(inside.shape[1]):
                for x in range(inside.shape[2]):
                    if inside[z, y, x]:
                        word = packed[box[0] + z, box[2] + y, box[4] + x]
                        value = (np.float64((word >> shift) & np.uint32(255)) - 128.0) / 127.0
                        total += abs(value - flow[axis, z, y, x])
    return total


@compiled
def _heat_sums(labels: Any, packed: Any, boxes: Any, lo: int, hi: int) -> Any:
    sums = np.zeros(boxes.shape[0])
    for label in range(lo + 1, hi + 1):
        box = boxes[label]
        if box[1] > box[0]:
            inside = labels[box[0] : box[1], box[2] : box[3], box[4] : box[5]] == label
            sums[label] = _box_sum(packed, box, heat_box(inside), inside)
    return sums


@compiled
def _centroid_sums(labels: Any, packed: Any, boxes: Any, lo: int, hi: int) -> Any:
    sums = np.zeros(boxes.shape[0])
    for label in range(lo + 1, hi + 1):
        box = boxes[label]
        if box[1] > box[0]:
            inside = labels[box[0] : box[1], box[2] : box[3], box[4] : box[5]] == label
            sums[label] = _box_sum(packed, box, centroid_box(inside, CENTROID_SCALE_VOXELS), inside)
    return sums
