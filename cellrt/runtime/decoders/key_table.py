"""Open addressing for tables of touching pairs inside kernels."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(cache=True, nogil=True)
def slot_of(keys: Any, key: Any) -> Any:
    """Slot of `key` in a table of 2**n keys, or the free one where it belongs (0 is free)."""
    mask = keys.size - 1
    slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) >> 20 & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot
