"""Measuring and renumbering regions on a GPU, and giving walls to cells.

Neighbouring voxels mostly have one label. A thread therefore takes a run of voxels and adds to a
table once per label, not once per voxel, which would have its neighbours wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from cellrt.runtime.decoding.flows import walls
from cellrt.runtime.decoding.flows.walls import BRICK, ball_shells, brick_shape, spread_bricks
from cellrt.runtime.decoding.labels.regions import Regions
from cellrt.runtime.machine.kernels import (
    device_function,
    kernel,
    launch,
    place_of,
    to_device,
    zeros,
)

RUN = 32  # voxels

_wall_label = device_function(
    walls.wall_label,
    _opposite=device_function(walls._opposite),
    _most_frequent=device_function(walls._most_frequent),
)


def count_regions(labels: Any, count: int) -> Regions:
    """Volume and first voxel of each label 0..`count`, on the host."""
    volumes = zeros(count + 1, np.int64)
    first = to_device(np.full(count + 1, np.iinfo(np.int64).max))
    launch(_count, -(-labels.size // RUN), labels.reshape(labels.size), volumes, first)
    return Regions(volumes.copy_to_host(), first.copy_to_host())


def probability_sums(labels: Any, packed: Any, count: int) -> npt.NDArray[np.int64]:
    """Sum of the probability bytes of each label, on the host."""
    return _byte_sums(labels, packed, count, np.uint32(0))


def foreground_voxels(
    labels: Any, packed: Any, count: int, least: np.uint32
) -> npt.NDArray[np.int64]:
    """Voxels of each label 0..`count` with at least that probability byte, on the host."""
    return _byte_sums(labels, packed, count, least)


def _byte_sums(labels: Any, packed: Any, count: int, least: np.uint32) -> npt.NDArray[np.int64]:
    size = labels.size
    sums = zeros(count + 1, np.int64)
    launch(_add_bytes, -(-size // RUN), labels.reshape(size), packed.reshape(size), least, sums)
    result: npt.NDArray[np.int64] = sums.copy_to_host()
    return result


def relabel(labels: Any, table: npt.NDArray[np.int32]) -> None:
    """Replace each label by its entry of a table, in place."""
    launch(_relabel, labels.size, labels.reshape(labels.size), to_device(table))


def fill_walls(labels: Any, thickness: float) -> None:
    """Give each voxel of a wall to the nearest cell, in place."""
    offsets, shells, outer = ball_shells(thickness)
    occupied = zeros(brick_shape(labels.shape), np.uint8)
    launch(_occupy, labels.size, labels, occupied)
    near = spread_bricks(occupied.copy_to_host().astype(np.bool_), thickness)
    ball = (to_device(offsets), to_device(shells), outer)
    launch(_fill, labels.size, labels, *ball, to_device(near.view(np.uint8)))
    launch(_settle, labels.size, labels.reshape(labels.size))


@kernel
def _count(labels: Any, volumes: Any, first: Any) -> None:
    run = cuda.grid(1)
    while run * RUN < labels.size:
        start = run * RUN
        stop = min(start + RUN, labels.size)
        for i in range(start, stop):
            if i + 1 == stop or labels[i + 1] != labels[i]:
                if labels[i] != 0:
                    cuda.atomic.add(volumes, labels[i], i + 1 - start)
                    cuda.atomic.min(first, labels[i], start)
                start = i + 1
        run += cuda.gridsize(1)


@kernel
def _add_bytes(labels: Any, packed: Any, least: Any, sums: Any) -> None:
    """Add the probability bytes, or count those of at least `least` where that is not 0."""
    run = cuda.grid(1)
    while run * RUN < labels.size:
        stop = min(run * RUN + RUN, labels.size)
        total = np.int64(0)
        for i in range(run * RUN, stop):
            byte = packed[i] >> np.uint32(24)
            if least == 0:
                total += np.int64(byte)
            elif byte >= least:
                total += 1
            if i + 1 == stop or labels[i + 1] != labels[i]:
                if labels[i] != 0 or least != 0:
                    cuda.atomic.add(sums, labels[i], total)
                total = np.int64(0)
        run += cuda.gridsize(1)


@kernel
def _relabel(labels: Any, table: Any) -> None:
    i = cuda.grid(1)
    while i < labels.size:
        labels[i] = table[labels[i]]
        i += cuda.gridsize(1)


@kernel
def _occupy(labels: Any, occupied: Any) -> None:
    _, ny, nx = labels.shape
    here = cuda.grid(1)
    while here < labels.size:
        z, y, x = place_of(here, ny, nx)
        if labels[z, y, x] > 0:
            occupied[z // BRICK, y // BRICK, x // BRICK] = 1
        here += cuda.gridsize(1)


@kernel
def _fill(labels: Any, offsets: Any, shells: Any, outer: int, near: Any) -> None:
    _, ny, nx = labels.shape
    here = cuda.grid(1)
    while here < labels.size:
        z, y, x = place_of(here, ny, nx)
        if labels[z, y, x] <= 0 and near[z // BRICK, y // BRICK, x // BRICK]:
            # Negative until all are done: filled voxels are no sources.
            labels[z, y, x] = -_wall_label(labels, offsets, shells, outer, z, y, x)
        here += cuda.gridsize(1)


@kernel
def _settle(labels: Any) -> None:
    i = cuda.grid(1)
    while i < labels.size:
        labels[i] = abs(labels[i])
        i += cuda.gridsize(1)
