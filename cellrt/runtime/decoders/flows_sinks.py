"""Which sinks belong to the same cell.

Imperfect fields have several sinks per cell. Two sinks are joined when the flow does not diverge
where their basins touch: at the border between two cells it points away on both sides, at a border
inside one cell it does not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.decoders.flows_trace import PackedField, Pointers


class Contacts(NamedTuple):
    """Touching pairs of basins: numbers (first < second), faces, summed divergence of the flow."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    faces: npt.NDArray[np.int64]
    divergence: npt.NDArray[np.float64]


def number_sinks(pointers: Pointers) -> npt.NDArray[np.int64]:
    """Turn followed pointers, in place, into basin numbers from 1 (0: background).

    Basins are numbered by their sink's flat index; those indices are returned.
    """
    sinks: npt.NDArray[np.int64] = _mark_sinks(pointers)
    _number(pointers)
    return sinks


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mark_sinks(pointers: Any) -> Any:
    count = 0
    for i in range(pointers.size):
        if pointers[i] == i:
            count += 1
    sinks = np.empty(count, np.int64)
    count = 0
    for i in range(pointers.size):
        if pointers[i] == i:
            sinks[count] = i
            count += 1
            pointers[i] = -1 - count
    return sinks


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _number(pointers: Any) -> None:
    # Sinks hold -1 - number, so that both kinds can be told apart while the array changes.
    for i in range(pointers.size):
        if pointers[i] >= 0:
            pointers[i] = pointers[pointers[i]]
    for i in range(pointers.size):
        pointers[i] = -1 - pointers[i]


def basin_contacts(basins: npt.NDArray[np.int32], packed: PackedField) -> Contacts:
    """Find all pairs of basins that share a face, with the flow's divergence summed over faces.

    Per face the divergence is the flow's component along the face's normal after it minus before
    it, from -2 (both point into the face) to 2 (both point away from it).
    """
    return Contacts(*_contacts(basins, packed))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _contacts(basins: Any, packed: Any) -> Any:
    nz, ny, nx = basins.shape
    size = 1 << 12
    keys = np.zeros(size, np.int64)
    faces = np.zeros(size, np.int64)
    sums = np.zeros(size, np.int64)
    used = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                a = basins[z, y, x]
                if a == 0:
                    continue
                for axis in range(3):
                    if axis == 0:
                        if z + 1 == nz:
                            continue
                        b = basins[z + 1, y, x]
                    elif axis == 1:
                        if y + 1 == ny:
                            continue
                        b = basins[z, y + 1, x]
                    else:
                        if x + 1 == nx:
                            continue
                        b = basins[z, y, x + 1]
                    if b == a or b == 0:
                        continue
                    if axis == 0:
                        before = (packed[z, y, x] >> np.uint32(16)) & np.uint32(255)
                        after = (packed[z + 1, y, x] >> np.uint32(16)) & np.uint32(255)
                    elif axis == 1:
                        before = (packed[z, y, x] >> np.uint32(8)) & np.uint32(255)
                        after = (packed[z, y + 1, x] >> np.uint32(8)) & np.uint32(255)
                    else:
                        before = packed[z, y, x] & np.uint32(255)
                        after = packed[z, y, x + 1] & np.uint32(255)
                    key = (np.int64(min(a, b)) << 32) | np.int64(max(a, b))
                    slot = _slot(keys, key)
                    if keys[slot] == 0:
                        if 2 * (used + 1) > size:
                            keys, faces, sums = _grow(keys, faces, sums)
                            size *= 2
                            slot = _slot(keys, key)
                        keys[slot] = key
                        used += 1
                    faces[slot] += 1
                    sums[slot] += np.int64(after) - np.int64(before)
    taken = np.flatnonzero(keys)
    order = taken[np.argsort(keys[taken])]
    return (
        keys[order] >> 32,
        keys[order] & 0xFFFFFFFF,
        faces[order],
        sums[order] / 127.0,
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _slot(keys: Any, key: int) -> int:
    """Slot of `key`, or the free one where it belongs (open addressing; 0 is free)."""
    mask = keys.size - 1
    slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) >> 20 & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grow(keys: Any, faces: Any, sums: Any) -> Any:
    size = 2 * keys.size
    new_keys = np.zeros(size, np.int64)
    new_faces = np.zeros(size, np.int64)
    new_sums = np.zeros(size, np.int64)
    for i in range(keys.size):
        if keys[i] != 0:
            slot = _slot(new_keys, keys[i])
            new_keys[slot] = keys[i]
            new_faces[slot] = faces[i]
            new_sums[slot] = sums[i]
    return new_keys, new_faces, new_sums


def join_undivided(
    count: int, contacts: Contacts, highest_divergence: float
) -> npt.NDArray[np.int32]:
    """Group the basins 1..`count` whose contact has at most that mean divergence per face.

    Returns
    -------
    (count + 1,) int32 array
        The lowest basin number of each basin's group; entry 0 is 0.
    """
    joined = contacts.divergence <= highest_divergence * contacts.faces
    parent = np.arange(count + 1, dtype=np.int32)
    _union(parent, contacts.first[joined], contacts.second[joined])
    return parent


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _union(parent: Any, first: Any, second: Any) -> None:
    for i in range(first.size):
        a = first[i]
        b = second[i]
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for i in range(parent.size):
        parent[i] = parent[parent[i]]
