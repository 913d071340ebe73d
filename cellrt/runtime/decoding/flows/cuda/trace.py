"""Tracing on a GPU: pointers along the flow, the sink of every voxel, basins numbered by sinks.

All of it happens in the 4 bytes per voxel that become the labels. Each thread walks the path of
its voxel and then writes the answer in place of the pointer; whoever comes by later takes it from
there. A value is either a pointer of the path or the final answer, so the order does not matter.

====================  =====================================
``pointers[i]``       voxel i
====================  =====================================
-1                    background
n >= 0                moves to voxel n
-2 - s                ends in the sink s
====================  =====================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from cellrt.runtime.decoding.flows.packed_field import threshold_byte
from cellrt.runtime.decoding.flows.sinks import number_sinks
from cellrt.runtime.decoding.flows.trace import (
    BACKGROUND,
    creep,
    follow_pointers,
    move_table,
    next_voxel,
)
from cellrt.runtime.machine.kernels import (
    device_function,
    empty,
    kernel,
    launch,
    place_of,
    to_device,
    zeros,
)

# Moves after which a walk is given up. Paths in simulated fields like a network's had 5 on average
# and at most 22; a field that winds through the whole volume would stall the GPU.
MOST_MOVES = 1024

_next_voxel = device_function(next_voxel)
_creep = device_function(creep)


def basins(packed: Any, step: float, threshold: float) -> tuple[Any, npt.NDArray[np.int64]]:
    """Basins from 1 in the order of their sinks' indices, and these indices on the host."""
    pointers = empty(packed.size, np.int32)
    moves = to_device(move_table(step))
    least = threshold_byte(threshold)
    launch(_point, packed.size, packed.reshape(packed.size), packed.shape, moves, least, pointers)
    sinks = follow_and_number(pointers)
    return pointers.reshape(packed.shape), sinks


def follow_and_number(pointers: Any) -> npt.NDArray[np.int64]:
    """Turn pointers, in place, into basin numbers; returns the sinks' indices on the host."""
    counts = zeros(2, np.int64)
    launch(_walk, pointers.size, pointers, MOST_MOVES, counts)
    unfinished, count = counts.copy_to_host()
    if unfinished:
        return _finish_on_host(pointers)
    sinks = empty(max(count, 1), np.int64)
    launch(_collect_sinks, pointers.size, pointers, sinks, zeros(1, np.int64))
    # The order in which threads found them is any; their own order is the host's.
    sorted_sinks: npt.NDArray[np.int64] = np.sort(sinks.copy_to_host()[:count])
    launch(_number_sinks, count, pointers, to_device(sorted_sinks))
    launch(_number_voxels, pointers.size, pointers)
    return sorted_sinks


def _finish_on_host(pointers: Any) -> npt.NDArray[np.int64]:
    """Follow the rest of endless paths where it takes time linear in voxels."""
    followed = pointers.copy_to_host()
    known = followed < BACKGROUND
    followed[known] = -2 - followed[known]
    follow_pointers(followed)
    sinks = number_sinks(followed)
    pointers.copy_to_device(followed)
    return sinks


@kernel
def _point(packed: Any, shape: Any, moves: Any, least: Any, pointers: Any) -> None:
    _, ny, nx = shape
    here = cuda.grid(1)
    while here < pointers.size:
        z, y, x = place_of(here, ny, nx)
        target = _next_voxel(packed, shape, moves, least, z, y, x)
        if target == here:
            target = _creep(packed, shape, z, y, x, least)
        pointers[here] = target
        here += cuda.gridsize(1)


@kernel
def _walk(pointers: Any, most: int, counts: Any) -> None:
    """Replace pointers by answers; `counts` are walks given up and sinks."""
    unfinished = 0
    sinks = 0
    start = cuda.grid(1)
    while start < pointers.size:
        at = np.int64(start)
        after = np.int64(pointers[at])
        if after != -1:
            # Brent's cycle search, as on the CPU: a mark that moves up after 1, 2, 4, ... steps.
            mark = at
            power = 1
            walked = 0
            moves = 0
            while after >= 0 and after != at and after != mark and moves < most:
                if walked == power:
                    mark = at
                    power *= 2
                    walked = 0
                at = after
                after = np.int64(pointers[at])
                walked += 1
                moves += 1
            sink = np.int64(-1)
            if after < 0:
                sink = -2 - after
            elif after == at:
                sink = at
            elif after == mark:
                sink = at
                while after >= 0 and after != at:
                    sink = min(sink, after)
                    after = np.int64(pointers[after])
                if after < 0:  # another thread has been round the cycle
                    sink = -2 - after
            if sink < 0:
                unfinished += 1
            else:
                pointers[start] = -2 - sink
                if sink == start:
                    sinks += 1
        start += cuda.gridsize(1)
    cuda.atomic.add(counts, 0, unfinished)
    cuda.atomic.add(counts, 1, sinks)


@kernel
def _collect_sinks(pointers: Any, sinks: Any, used: Any) -> None:
    i = cuda.grid(1)
    while i < pointers.size:
        if pointers[i] == -2 - i:
            sinks[cuda.atomic.add(used, 0, 1)] = i
        i += cuda.gridsize(1)


@kernel
def _number_sinks(pointers: Any, sinks: Any) -> None:
    k = cuda.grid(1)
    while k < sinks.size:
        pointers[sinks[k]] = k + 1
        k += cuda.gridsize(1)


@kernel
def _number_voxels(pointers: Any) -> None:
    i = cuda.grid(1)
    while i < pointers.size:
        code = np.int64(pointers[i])
        if code == -1:
            pointers[i] = 0
        elif code < -1:
            pointers[i] = pointers[-2 - code]  # a sink's, which nobody changes any more
        i += cuda.gridsize(1)
