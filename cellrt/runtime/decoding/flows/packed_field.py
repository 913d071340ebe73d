"""Flow and foreground in four bytes a voxel.

One uint32 per voxel (8 bits each, most significant first)::

    foreground probability * 255 | flow z | flow y | flow x      (flow byte = 128 + 127 * g)

It keeps the working set of a random access to one word; 1/127 of the step (0.03 voxels for a step
of 4) is far below the half voxel to which positions are rounded.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.rounding import times
from cellrt.threads import in_threads

PackedField = npt.NDArray[np.uint32]


def pack_field(
    flow: npt.NDArray[np.floating[Any]], foreground: npt.NDArray[np.generic]
) -> PackedField:
    """Pack flow and foreground into one word per voxel.

    Parameters
    ----------
    flow : (3, z, y, x) float16 or float32 array
        Flow towards the cell's centre; clipped to [-1, 1].
    foreground : (z, y, x) float16, float32, bool or uint8 array
        Probability in [0, 1], or a mask (non-zero is foreground).

    Returns
    -------
    (z, y, x) uint32 array
        The packed field; voxels with a value that is not a number are background without flow.
    """
    if foreground.dtype.kind not in "f":
        foreground = (foreground != 0).astype(np.float16)
    packed = np.empty(foreground.shape, np.uint32)
    count = int(np.prod(packed.shape[:1]))
    if flow.dtype == np.float16:
        table = _flow_byte(np.arange(1 << 16, dtype=np.uint16).view(np.float16))
        foreground = np.ascontiguousarray(foreground, np.float16).view(np.uint16)
        flow = np.ascontiguousarray(flow).view(np.uint16)
        chances = _chance_byte(np.arange(1 << 16, dtype=np.uint16).view(np.float16))
        work = partial(_pack_half, flow, foreground, table, chances, packed)
    else:
        flow = np.ascontiguousarray(flow, np.float32)
        foreground = np.ascontiguousarray(foreground, np.float32)
        work = partial(_pack_single, flow, foreground, packed)
    in_threads(count, work, voxels=packed.size)
    return packed


def unpack_flow(packed: PackedField) -> npt.NDArray[np.float16]:
    """Flow of a packed field, shape (3, z, y, x)."""
    values = ((np.arange(256) - 128) / 127).astype(np.float16)
    flow = np.empty((3, *packed.shape), np.float16)
    for axis, shift in enumerate((16, 8, 0)):
        for z in range(len(packed)):
            flow[axis, z] = values[(packed[z] >> np.uint32(shift)) & np.uint32(255)]
    return flow


def threshold_byte(threshold: float) -> np.uint32:
    """Lowest byte of a foreground probability that counts as foreground."""
    least: np.uint32 = np.uint32(max(1, int(np.floor(threshold * 255.0 + 0.5))))
    return least


def _flow_byte(values: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    """Byte of each flow value; 0 stands for not-a-number."""
    clipped = np.clip(np.nan_to_num(values.astype(np.float32)), -1.0, 1.0)
    byte: npt.NDArray[np.uint8] = np.floor(clipped * 127.0 + 128.5).astype(np.uint8)
    byte[np.isnan(values)] = 0
    return byte


def _chance_byte(values: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    clipped = np.clip(np.nan_to_num(values.astype(np.float32)), 0.0, 1.0)
    byte: npt.NDArray[np.uint8] = np.floor(clipped * 255.0 + 0.5).astype(np.uint8)
    return byte


@compiled
def _pack_half(
    flow: Any, foreground: Any, table: Any, chances: Any, packed: Any, lo: int, hi: int
) -> None:
    _, ny, nx = packed.shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                a = np.uint32(table[flow[0, z, y, x]])
                b = np.uint32(table[flow[1, z, y, x]])
                c = np.uint32(table[flow[2, z, y, x]])
                p = np.uint32(chances[foreground[z, y, x]])
                if a == 0 or b == 0 or c == 0:
                    packed[z, y, x] = np.uint32(0x808080)
                else:
                    packed[z, y, x] = (
                        (p << np.uint32(24)) | (a << np.uint32(16)) | (b << np.uint32(8)) | c
                    )


@inlined
def flow_bits(value: Any) -> Any:
    """Byte of a component of flow that is a number."""
    clipped = min(max(value, np.float32(-1.0)), np.float32(1.0))
    return np.uint32(times(clipped, np.float32(127.0)) + np.float32(128.5))


@inlined
def chance_bits(value: Any) -> Any:
    """Byte of a probability that is a number."""
    clipped = min(max(value, np.float32(0.0)), np.float32(1.0))
    return np.uint32(times(clipped, np.float32(255.0)) + np.float32(0.5))


@inlined
def word_of(a: Any, b: Any, c: Any, p: Any) -> Any:
    """Word of a voxel with flow (a, b, c) along z, y, x and probability p, all float32."""
    word = np.uint32(0x808080)
    if a == a and b == b and c == c and p == p:
        word = (
            (chance_bits(p) << np.uint32(24))
            | (flow_bits(a) << np.uint32(16))
            | (flow_bits(b) << np.uint32(8))
            | flow_bits(c)
        )
    return word


@compiled
def _pack_single(flow: Any, foreground: Any, packed: Any, lo: int, hi: int) -> None:
    _, ny, nx = packed.shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                packed[z, y, x] = word_of(
                    flow[0, z, y, x], flow[1, z, y, x], flow[2, z, y, x], foreground[z, y, x]
                )
