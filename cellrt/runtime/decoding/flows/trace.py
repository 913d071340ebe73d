"""Where each foreground voxel flows to: pointers along the flow field, followed to their sinks.

The next position of a voxel depends on its present one only, so the moves of all voxels form a
functional graph: every path ends in a sink (a voxel that does not move) or in a cycle. One pass
writes each voxel's next voxel, a second one follows the pointers and shortens them as it goes, so
that a path is walked once, however many voxels share it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.flows.packed_field import PackedField, threshold_byte
from cellrt.threads import in_threads

Pointers = npt.NDArray[np.int32]

BACKGROUND = -1


def follow_pointers(pointers: Pointers) -> None:
    """Replace each pointer of the flat array, in place, by the sink its path ends in.

    A cycle's sink is its lowest index. Threads may shorten the same path: each writes pointers
    that stay on the path, so every thread arrives at the same sink.
    """
    in_threads(pointers.size, partial(_follow, pointers), voxels=pointers.size)


@compiled
def _follow(pointers: Any, lo: int, hi: int) -> None:
    for start in range(lo, hi):
        at = np.int64(pointers[start])
        if at < 0:
            continue
        if pointers[at] != at:
            # Brent's cycle search: a mark that moves up after 1, 2, 4, ... steps.
            mark = at
            power = 1
            walked = 0
            after = np.int64(pointers[at])
            while after != at and after != mark:
                if walked == power:
                    mark = at
                    power *= 2
                    walked = 0
                at = after
                after = np.int64(pointers[at])
                walked += 1
            if after != at:
                lowest = at
                mark = at
                at = after
                while at != mark:
                    lowest = min(lowest, at)
                    at = np.int64(pointers[at])
                at = lowest
                after = np.int64(pointers[at])
                pointers[at] = at
                while after != at:
                    following = np.int64(pointers[after])
                    pointers[after] = at
                    after = following
        sink = at
        at = start
        while at != sink:
            after = np.int64(pointers[at])
            pointers[at] = sink
            at = after


def lattice_pointers(packed: PackedField, step: float, threshold: float) -> Pointers:
    """Each foreground voxel's next voxel: the position ``x + step * g(x)``, rounded.

    A move is cut in half, per axis, where the flow at half way or at the end points back (it
    jumped over the centre), and as a whole where it would leave the foreground: the rule as
    published, with steps of 4 voxels, throws voxels of small or thin cells into their neighbours.

    Returns
    -------
    (z * y * x,) int32 array
        Flat index of the next voxel, -1 in the background.
    """
    pointers = np.empty(packed.size, np.int32)
    in_threads(
        packed.shape[0],
        partial(
            _lattice_pointers,
            packed.reshape(-1),
            packed.shape,
            pointers,
            move_table(step),
            threshold_byte(threshold),
        ),
        voxels=packed.size,
    )
    return pointers


def move_table(step: float) -> npt.NDArray[np.int64]:
    """Whole voxels that a flow byte moves, after 0, 1, 2, ... halvings of the move."""
    move = step * (np.arange(256) - 128) / 127.0
    # The last two rows are 0: a move that was cut often enough stays where it is.
    halvings = 2.0 ** -np.arange(max(int(np.ceil(np.log2(step))), 0) + 4)
    # Rounding away from zero at .5 on both sides keeps the rule symmetric under flips.
    size = np.floor(np.abs(move) * halvings[:, None] + 0.5)
    moves: npt.NDArray[np.int64] = (np.sign(move) * size).astype(np.int64)
    return moves


@compiled
def creep(packed: Any, shape: Any, z: int, y: int, x: int, least: Any) -> Any:
    """Neighbour towards which a voxel moves whose move rounds to nothing.

    Between voxels it would get there by many small moves. It stays where the flow of the
    neighbour leads back, which makes it a sink.
    """
    here = (z * shape[1] + y) * shape[2] + x
    word = packed[here]
    gz = np.int64((word >> np.uint32(16)) & np.uint32(255)) - 128
    gy = np.int64((word >> np.uint32(8)) & np.uint32(255)) - 128
    gx = np.int64(word & np.uint32(255)) - 128
    most = max(abs(gz), abs(gy), abs(gx))
    if most == 0:
        return here
    # Axes with at least half of the largest component, as in rounding a move of one voxel.
    tz = z + (gz > 0) - (gz < 0) if 2 * abs(gz) >= most else z
    ty = y + (gy > 0) - (gy < 0) if 2 * abs(gy) >= most else y
    tx = x + (gx > 0) - (gx < 0) if 2 * abs(gx) >= most else x
    tz = min(max(tz, 0), shape[0] - 1)
    ty = min(max(ty, 0), shape[1] - 1)
    tx = min(max(tx, 0), shape[2] - 1)
    there = (tz * shape[1] + ty) * shape[2] + tx
    other = packed[there]
    if (other >> np.uint32(24)) < least:
        return here
    oz = np.int64((other >> np.uint32(16)) & np.uint32(255)) - 128
    oy = np.int64((other >> np.uint32(8)) & np.uint32(255)) - 128
    ox = np.int64(other & np.uint32(255)) - 128
    back = (tz != z and gz * oz < 0) or (ty != y and gy * oy < 0) or (tx != x and gx * ox < 0)
    return here if back else there


# Inlined, because a call for every voxel costs half as much again.
@inlined
def next_voxel(packed: Any, shape: Any, moves: Any, least: Any, z: int, y: int, x: int) -> Any:
    """Flat index of a voxel's next voxel, its own where the move rounds to nothing."""
    nz, ny, nx = shape
    byte = np.uint32(255)
    signs = np.uint32(0x808080)
    lows = np.uint32(0x7F7F7F)
    one = np.uint32(1)
    most = np.uint32(moves.shape[0] - 2)
    here = (z * ny + y) * nx + x
    word = packed[here]
    if (word >> np.uint32(24)) < least:
        return BACKGROUND
    gz = (word >> np.uint32(16)) & byte
    gy = (word >> np.uint32(8)) & byte
    gx = word & byte
    # Halvings of the move so far, per axis; one more while looking half way.
    kz = ky = kx = np.uint32(0)
    half_way = one
    while True:
        tz = min(max(z + moves[kz + half_way, gz], 0), nz - 1)
        ty = min(max(y + moves[ky + half_way, gy], 0), ny - 1)
        tx = min(max(x + moves[kx + half_way, gx], 0), nx - 1)
        there = (tz * ny + ty) * nx + tx
        if there != here:
            other = packed[there]
            if (other >> np.uint32(24)) < least:
                turned = signs
            else:
                # Sign bits that differ, but for bytes of 128, which have no sign: all three axes
                # at once, because branches cost more than arithmetic here.
                plain = other ^ signs
                turned = (word ^ other) & signs & (((plain & lows) + lows) | plain)
                # An axis along which nothing moves has nothing to cut.
                turned &= (
                    (np.uint32(tz != z) << np.uint32(23))
                    | (np.uint32(ty != y) << np.uint32(15))
                    | (np.uint32(tx != x) << np.uint32(7))
                )
            if turned != 0:
                kz = min(kz + ((turned >> np.uint32(23)) & one), most)
                ky = min(ky + ((turned >> np.uint32(15)) & one), most)
                kx = min(kx + ((turned >> np.uint32(7)) & one), most)
                if half_way == 0 or turned == signs:
                    continue
        if half_way == 0:
            return there
        half_way = np.uint32(0)


@compiled
def _lattice_pointers(
    packed: Any, shape: Any, pointers: Any, moves: Any, least: Any, lo: int, hi: int
) -> None:
    _, ny, nx = shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                here = (z * ny + y) * nx + x
                target = next_voxel(packed, shape, moves, least, z, y, x)
                if target == here:
                    target = creep(packed, shape, z, y, x, least)
                pointers[here] = target
