"""Contacts between basins on a GPU: a hash table that all threads add to.

Integers are added, so the sums are the same in any order; the order of the pairs is not, and
nothing depends on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from cellrt.runtime.decoding.flows.sinks import Contacts, contacts_of, face_divergence
from cellrt.runtime.machine.kernels import device_function, inner_function, kernel, launch, zeros

# Slots per basin to begin with; basins of one cell or of a tissue have about 14 neighbours, each
# of which is shared by two.
SLOTS_PER_BASIN = 16
# Slots to try before the table counts as full; then it is made twice as large.
_MOST_TRIES = 64

_face_divergence = device_function(face_divergence)


def basin_contacts(
    basins: Any, packed: Any, sinks: npt.NDArray[np.int64], closing_radius: float
) -> Contacts:
    """Pairs of basins that share a face, as on the CPU in another order."""
    flat = basins.reshape(basins.size)
    slots = 1 << int(np.ceil(np.log2(SLOTS_PER_BASIN * max(sinks.size, 1))))
    while True:
        keys, faces, sums = (zeros(slots, np.int64) for _ in range(3))
        full = zeros(1, np.int64)
        voxels = (flat, packed.reshape(basins.size), basins.shape)
        launch(_add_faces, basins.size, *voxels, keys, faces, sums, full)
        if not full.copy_to_host()[0]:
            break
        slots *= 2
    found = keys.copy_to_host()
    taken = np.flatnonzero(found)
    pairs = found[taken]
    return contacts_of(
        pairs >> 32,
        pairs & 0xFFFFFFFF,
        faces.copy_to_host()[taken],
        sums.copy_to_host()[taken],
        sinks,
        basins.shape,
        closing_radius,
    )


@inner_function
def _slot(keys: Any, a: int, b: int) -> Any:
    """Slot of the pair a < b, taken if need be; -1 where too many others are in the way."""
    key = (a << 32) | b
    # Products stay below 2**63, since labels do below 2**31.
    slot = ((a * 2654435761) ^ (b * 2246822519)) >> 7
    for _ in range(_MOST_TRIES):
        slot &= keys.size - 1
        present = keys[slot]
        if present == 0:
            present = cuda.atomic.cas(keys, slot, 0, key)
        if present == 0 or present == key:
            return slot
        slot += 1
    return -1


@kernel
def _add_faces(
    basins: Any, packed: Any, shape: Any, keys: Any, faces: Any, sums: Any, full: Any
) -> None:
    nz, ny, nx = shape
    here = cuda.grid(1)
    while here < basins.size:
        a = np.int64(basins[here])
        if a != 0:
            for axis in range(3):
                if axis == 0:
                    at, length, stride, shift = here // (ny * nx), nz, ny * nx, np.uint32(16)
                elif axis == 1:
                    at, length, stride, shift = here // nx % ny, ny, nx, np.uint32(8)
                else:
                    at, length, stride, shift = here % nx, nx, 1, np.uint32(0)
                if at + 1 >= length:
                    continue
                b = np.int64(basins[here + stride])
                if b == 0 or b == a:
                    continue
                slot = _slot(keys, min(a, b), max(a, b))
                if slot < 0:
                    full[0] = 1
                    return
                divergence = _face_divergence(
                    basins, packed, here, stride, shift, at > 0, at + 2 < length
                )
                cuda.atomic.add(faces, slot, 1)
                cuda.atomic.add(sums, slot, divergence)
        here += cuda.gridsize(1)
