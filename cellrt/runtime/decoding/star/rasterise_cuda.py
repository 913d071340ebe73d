"""Shapes become voxels on a GPU, with the labels of :mod:`~cellrt.runtime.decoding.star.rasterise`.

All voxels of all boxes are drawn at once. What a shape says of a voxel is one number, the smaller
the better: how deep the voxel is in the shape, and below that which shape it is. The smallest
stays, in whatever order they come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.errors import ResourceError
from cellrt.geometry import LabelArray, Shape
from cellrt.runtime.decoding import rounding
from cellrt.runtime.decoding.star import harmonic_ratio, tetrahedra
from cellrt.runtime.decoding.star.harmonic_ratio import MARGIN
from cellrt.runtime.decoding.star.harmonics import norms
from cellrt.runtime.decoding.star.rasterise import Masks, boxes_of
from cellrt.runtime.decoding.star.tetrahedra import faces_between, tetrahedron
from cellrt.runtime.machine.kernels import (
    device_function,
    empty,
    free_bytes,
    inner_function,
    kernel,
    launch,
    place_of,
    rounded_double_product,
    to_device,
    zeros,
)
from cellrt.runtime.machine.transfer import to_host
from cellrt.threads import in_threads

# Voxels that are drawn at a time, and bytes of the tables about shapes that are: both bound the
# memory, and a GPU has enough to do with either.
SLAB_VOXELS = 1 << 25
TABLE_BYTES = 1 << 26
# The best shape so far, and labels.
_BYTES_PER_VOXEL = 12
# Worse than what any shape says.
_NOTHING = np.int64((1 << 63) - 1)
_CELL = np.int64(0xFFFFFFFF)

_dot = device_function(rounding.dot, times=rounded_double_product)
_radius_along = device_function(harmonic_ratio.radius_along, times=rounded_double_product)
_harmonic_ratio = device_function(harmonic_ratio.harmonic_ratio)
_tetrahedron_ratio = device_function(tetrahedra.tetrahedron_ratio)


def rasterise_harmonics(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    reach: NDArray[np.float64],
    *,
    limit: float = 1.0,
    first: bool = False,
) -> LabelArray:
    """See :func:`cellrt.runtime.decoding.star.rasterise.rasterise_harmonics`.

    Raises
    ------
    ResourceError
        The GPU has too little memory.
    """
    order = math.isqrt(coefficients.shape[1]) - 1
    scaled = coefficients * norms(order)
    recurrence = tuple(map(to_device, harmonic_ratio.recurrence(order)))
    reach = reach * (MARGIN * limit)

    def draw(cells: NDArray[np.int64], boxes: NDArray[np.int64], slab: Slab) -> None:
        starts = _starts(boxes)
        tables = (cells, boxes, starts, scaled[cells], reach[cells], centres[cells])
        launch(
            _draw_harmonics,
            int(starts[-1]),
            *map(to_device, tables),
            *(order, *recurrence, limit, first),
            *slab,
        )

    return _by_slabs(shape, spacing, centres, reach, draw, 8 * coefficients.shape[1])


def rasterise_rays(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    rays: NDArray[np.float64],
    *,
    limit: float = 1.0,
    first: bool = False,
) -> LabelArray:
    """See :func:`cellrt.runtime.decoding.star.rasterise.rasterise_rays`.

    Raises
    ------
    ResourceError
        The GPU has too little memory.
    """
    faces = faces_between(rays)
    reach = radii.max(axis=1, initial=0.0) * limit
    size = np.asarray(spacing, np.float64)

    def draw(cells: NDArray[np.int64], boxes: NDArray[np.int64], slab: Slab) -> None:
        inverses = np.empty((len(cells), len(faces), 3, 3))
        within = np.empty((len(cells), len(faces), 6), np.int64)
        work = partial(
            _tetrahedra, radii, rays, faces, limit, size, centres, cells, boxes, inverses, within
        )
        in_threads(len(cells), work, voxels=64 * len(cells) * len(faces))
        parts = within.reshape(-1, 6)
        present = np.flatnonzero((parts[:, 1::2] > parts[:, ::2]).all(axis=1))
        owners, parts = cells[present // len(faces)], parts[present]
        starts = _starts(parts)
        tables = (owners, parts, starts, inverses.reshape(-1, 3, 3)[present], centres[owners])
        launch(_draw_tetrahedra, int(starts[-1]), *map(to_device, tables), first, *slab)

    return _by_slabs(shape, spacing, centres, reach, draw, 160 * len(faces))


def harmonic_masks(
    shape: Shape,
    centres: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> Masks:
    """See :func:`cellrt.runtime.decoding.star.rasterise.harmonic_masks`.

    Raises
    ------
    ResourceError
        The GPU has too little memory.
    """
    order = math.isqrt(coefficients.shape[1]) - 1
    reach = reach * MARGIN
    boxes = boxes_of(shape, (1.0, 1.0, 1.0), centres, np.maximum(reach, 0.0))
    starts = _starts(boxes)
    total = int(starts[-1])
    tables = (boxes, starts, coefficients * norms(order), reach, centres)
    _check_memory(total + sum(table.nbytes for table in tables))
    voxels, volumes = empty(total, np.uint8), zeros(len(centres), np.int64)
    recurrence = tuple(map(to_device, harmonic_ratio.recurrence(order)))
    launch(_fill_masks, total, *map(to_device, tables), order, *recurrence, voxels, volumes)
    found = to_host(voxels) if total else np.zeros(0, np.uint8)
    return Masks(boxes, starts[:-1], found, volumes.copy_to_host())


# What a slab is for kernels: size of voxels, first plane, rows and columns, and the best shape of
# each voxel so far.
Slab = tuple[Any, int, int, int, Any]


def _by_slabs(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    reach: NDArray[np.float64],
    draw: Callable[[NDArray[np.int64], NDArray[np.int64], Slab], None],
    cell_bytes: int,
) -> LabelArray:
    """Draw some cells of a slab at a time; `draw` gets which, and their boxes within it."""
    result = np.zeros(shape, np.int32)
    boxes = boxes_of(shape, spacing, centres, np.maximum(reach, 0.0))
    _, height, width = shape
    planes = max(1, min(len(result), SLAB_VOXELS // max(height * width, 1)))
    size = to_device(np.asarray(spacing, np.float64))
    voxels = planes * height * width
    _check_memory(_BYTES_PER_VOXEL * voxels + 2 * TABLE_BYTES)
    best, labels = empty(voxels, np.int64), empty(voxels, np.int32)
    for lo in range(0, len(result), planes):
        hi = min(lo + planes, len(result))
        part = boxes.copy()
        part[:, :2] = np.clip(part[:, :2], lo, hi)
        cells = np.flatnonzero((reach > 0) & (part[:, 1::2] > part[:, ::2]).all(axis=1))
        if not cells.size:
            continue
        launch(_clear, voxels, best)
        for some in _in_parts(cells, max(1, TABLE_BYTES // cell_bytes)):
            draw(some, part[some], (size, lo, height, width, best))
        launch(_label, voxels, best, labels)
        result[lo:hi] = to_host(labels).reshape(planes, height, width)[: hi - lo]
    return result


def _in_parts(items: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    for begin in range(0, len(items), most):
        yield items[begin : begin + most]


def _check_memory(needed: float) -> None:
    free = free_bytes()
    if needed > free:
        raise ResourceError(
            f"it needs {needed / 1e9:.2g} GB of device memory and {free / 1e9:.2g} GB are free"
        )


def _starts(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the voxels of each box begin, if they are counted through, and where all end."""
    counts = np.prod(np.maximum(boxes[:, 1::2] - boxes[:, ::2], 0), axis=1)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


@compiled
def _tetrahedra(
    radii: Any,
    rays: Any,
    faces: Any,
    limit: Any,
    size: Any,
    centres: Any,
    cells: Any,
    boxes: Any,
    inverses: Any,
    parts: Any,
    lo: int,
    hi: int,
) -> None:
    corners = np.empty((3, 3))
    for i in range(lo, hi):
        cell = cells[i]
        for j in range(faces.shape[0]):
            tetrahedron(
                radii[cell],
                rays,
                faces[j],
                limit,
                size,
                centres[cell],
                boxes[i],
                corners,
                inverses[i, j],
                parts[i, j],
            )


@inner_function
def _box_at(starts: Any, i: Any) -> Any:
    """The box that the i-th of all voxels is in."""
    low, high = 0, starts.size - 2
    while low < high:
        middle = (low + high + 1) // 2
        if starts[middle] <= i:
            low = middle
        else:
            high = middle - 1
    return low


@inner_function
def _voxel_at(boxes: Any, starts: Any, k: Any, i: Any) -> Any:
    """Place (z, y, x) of the i-th of all voxels, which is in the k-th box."""
    height, width = boxes[k, 3] - boxes[k, 2], boxes[k, 5] - boxes[k, 4]
    plane, row, column = place_of(i - starts[k], height, width)
    return boxes[k, 0] + plane, boxes[k, 2] + row, boxes[k, 4] + column


@inner_function
def _rank(ratio: Any, cell: Any, first: Any) -> Any:
    """What a cell says of a voxel; the bits of numbers from 0 are in the order of these."""
    if first:
        return np.int64(cell)
    return (np.int64(np.float32(ratio).view(np.int32)) << 32) | np.int64(cell)


@kernel
def _draw_harmonics(
    cells: Any,
    boxes: Any,
    starts: Any,
    scaled: Any,
    reach: Any,
    centres: Any,
    order: int,
    up: Any,
    down: Any,
    limit: Any,
    first: bool,
    size: Any,
    plane: int,
    height: int,
    width: int,
    best: Any,
) -> None:
    for i in range(cuda.grid(1), starts[starts.size - 1], cuda.gridsize(1)):
        k = _box_at(starts, i)
        z, y, x = _voxel_at(boxes, starts, k, i)
        dz = rounded_double_product(float(z), size[0]) - centres[k, 0]
        dy = rounded_double_product(float(y), size[1]) - centres[k, 1]
        dx = rounded_double_product(float(x), size[2]) - centres[k, 2]
        distance = math.sqrt(_dot(dz, dy, dx, dz, dy, dx))
        if distance > reach[k]:
            continue
        inverse = 1.0 / distance if distance > 0.0 else 0.0
        radius = _radius_along(scaled[k], order, up, down, dz * inverse, dy * inverse, dx * inverse)
        ratio = _harmonic_ratio(distance, radius, limit)
        if ratio >= 0.0:
            at = ((z - plane) * height + y) * width + x
            cuda.atomic.min(best, at, _rank(ratio, cells[k], first))


@kernel
def _draw_tetrahedra(
    cells: Any,
    boxes: Any,
    starts: Any,
    inverses: Any,
    centres: Any,
    first: bool,
    size: Any,
    plane: int,
    height: int,
    width: int,
    best: Any,
) -> None:
    for i in range(cuda.grid(1), starts[starts.size - 1], cuda.gridsize(1)):
        k = _box_at(starts, i)
        z, y, x = _voxel_at(boxes, starts, k, i)
        dz = rounded_double_product(float(z), size[0]) - centres[k, 0]
        dy = rounded_double_product(float(y), size[1]) - centres[k, 1]
        dx = rounded_double_product(float(x), size[2]) - centres[k, 2]
        a = _dot(dz, dy, dx, inverses[k, 0, 0], inverses[k, 1, 0], inverses[k, 2, 0])
        b = _dot(dz, dy, dx, inverses[k, 0, 1], inverses[k, 1, 1], inverses[k, 2, 1])
        c = _dot(dz, dy, dx, inverses[k, 0, 2], inverses[k, 1, 2], inverses[k, 2, 2])
        ratio = _tetrahedron_ratio(a, b, c)
        if ratio >= 0.0:
            at = ((z - plane) * height + y) * width + x
            cuda.atomic.min(best, at, _rank(ratio, cells[k], first))


@kernel
def _fill_masks(
    boxes: Any,
    starts: Any,
    scaled: Any,
    reach: Any,
    centres: Any,
    order: int,
    up: Any,
    down: Any,
    voxels: Any,
    volumes: Any,
) -> None:
    for i in range(cuda.grid(1), starts[starts.size - 1], cuda.gridsize(1)):
        k = _box_at(starts, i)
        z, y, x = _voxel_at(boxes, starts, k, i)
        dz, dy, dx = z - centres[k, 0], y - centres[k, 1], x - centres[k, 2]
        distance = math.sqrt(_dot(dz, dy, dx, dz, dy, dx))
        inside = distance <= reach[k]
        if inside:
            inverse = 1.0 / distance if distance > 0.0 else 0.0
            radius = _radius_along(
                scaled[k], order, up, down, dz * inverse, dy * inverse, dx * inverse
            )
            inside = _harmonic_ratio(distance, radius, 1.0) >= 0.0
        voxels[i] = inside
        if inside:
            cuda.atomic.add(volumes, k, 1)


@kernel
def _clear(best: Any) -> None:
    for i in range(cuda.grid(1), best.size, cuda.gridsize(1)):
        best[i] = _NOTHING


@kernel
def _label(best: Any, labels: Any) -> None:
    for i in range(cuda.grid(1), best.size, cuda.gridsize(1)):
        labels[i] = 0 if best[i] == _NOTHING else (best[i] & _CELL) + 1
