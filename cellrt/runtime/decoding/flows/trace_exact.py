"""The flow decoder's rule with positions between voxels: the reference for the fast mode.

Every foreground voxel takes up to ``iterations`` moves of ``step * g(x)``. The flow at a position
between voxels is interpolated linearly, from foreground voxels only: the network is not trained on
flow in the background, and values from there would bend paths near the border. Moves are cut by
the same rule as in :mod:`cellrt.runtime.decoding.flows.trace`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.runtime.decoding.flows.packed_field import PackedField, threshold_byte
from cellrt.runtime.decoding.flows.trace import BACKGROUND, Pointers
from cellrt.threads import in_threads

_STANDSTILL = 1e-3  # voxels; a shorter move ends the walk


def exact_pointers(
    flow: npt.NDArray[np.floating[Any]],
    packed: PackedField,
    step: float,
    iterations: int,
    threshold: float,
) -> Pointers:
    """Voxel at which each foreground voxel's walk ends.

    Parameters
    ----------
    flow : (3, z, y, x) float16 or float32 array
        Read at half precision, the precision in which the network's fields are kept.
    packed : (z, y, x) uint32 array
        The same field, packed; gives the foreground.
    step, iterations, threshold
        See :class:`cellrt.runtime.decoding.flows.cells.FlowParameters`.

    Returns
    -------
    (z * y * x,) int32 array
        Flat index of the last foreground voxel of the walk, -1 in the background.
    """
    pointers = np.empty(packed.size, np.int32)
    bits = np.ascontiguousarray(flow, np.float16).view(np.uint16)
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.clip(np.nan_to_num(values), -1.0, 1.0)
    work = partial(
        _exact_pointers, bits, values, packed, pointers, step, iterations, threshold_byte(threshold)
    )
    in_threads(packed.shape[0], work, voxels=64 * packed.size)
    return pointers


@compiled
def _interpolate(bits: Any, values: Any, packed: Any, least: Any, place: Any, flow: Any) -> None:
    """Write the flow at `place`, from the foreground voxels around it, to `flow`."""
    nz, ny, nx = packed.shape
    z0, y0, x0 = int(place[0]), int(place[1]), int(place[2])
    total = 0.0
    flow[:] = 0.0
    for k in range(8):
        dz, dy, dx = k >> 2, (k >> 1) & 1, k & 1
        if z0 + dz >= nz or y0 + dy >= ny or x0 + dx >= nx:
            continue
        weight = (
            (1.0 - abs(place[0] - z0 - dz))
            * (1.0 - abs(place[1] - y0 - dy))
            * (1.0 - abs(place[2] - x0 - dx))
        )
        if weight == 0.0 or (packed[z0 + dz, y0 + dy, x0 + dx] >> np.uint32(24)) < least:
            continue
        total += weight
        for axis in range(3):
            flow[axis] += weight * values[bits[axis, z0 + dz, y0 + dy, x0 + dx]]
    if total > 0.0:
        for axis in range(3):
            flow[axis] /= total


@compiled
def _exact_pointers(
    bits: Any,
    values: Any,
    packed: Any,
    pointers: Any,
    step: float,
    iterations: int,
    least: Any,
    lo: int,
    hi: int,
) -> None:
    nz, ny, nx = packed.shape
    last = np.array([nz - 1, ny - 1, nx - 1])
    place = np.empty(3)
    flow = np.empty(3)
    move = np.empty(3)
    near = np.empty(3, np.int64)
    at = np.empty(3, np.int64)
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                here = (z * ny + y) * nx + x
                if (packed[z, y, x] >> np.uint32(24)) < least:
                    pointers[here] = BACKGROUND
                    continue
                place[0], place[1], place[2] = z, y, x
                near[0], near[1], near[2] = z, y, x
                for _ in range(iterations):
                    _interpolate(bits, values, packed, least, place, flow)
                    for axis in range(3):
                        move[axis] = step * flow[axis]
                    part = 0.5
                    cuts = 0
                    inside = True
                    while cuts < 8:
                        same = True
                        for axis in range(3):
                            to = place[axis] + part * move[axis]
                            at[axis] = min(max(int(np.floor(to + 0.5)), 0), last[axis])
                            same = same and at[axis] == near[axis]
                        inside = True
                        if not same:
                            word = packed[at[0], at[1], at[2]]
                            inside = (word >> np.uint32(24)) >= least
                            cut = False
                            for axis in range(3):
                                there = np.int64(
                                    (word >> np.uint32(16 - 8 * axis)) & np.uint32(255)
                                )
                                back = at[axis] != near[axis] and (there - 128) * flow[axis] < 0
                                if back or not inside:
                                    move[axis] *= 0.5
                                    cut = True
                            if cut:
                                cuts += 1
                                if part == 1.0 or not inside:
                                    continue
                        if part == 1.0:
                            break
                        part = 1.0
                    if not inside:
                        break
                    furthest = 0.0
                    for axis in range(3):
                        to = min(max(place[axis] + move[axis], 0.0), float(last[axis]))
                        furthest = max(furthest, abs(to - place[axis]))
                        place[axis] = to
                        at[axis] = int(np.floor(to + 0.5))
                    if (packed[at[0], at[1], at[2]] >> np.uint32(24)) >= least:
                        near[:] = at
                    if furthest < _STANDSTILL:
                        break
                pointers[here] = (near[0] * ny + near[1]) * nx + near[2]
