"""Open addressing for tables of touching pairs inside kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def slot_of(keys: Any, key: Any) -> Any:
    """Slot of `key` in a table of 2**n keys, or the free one where it belongs (0 is free)."""
    mask = keys.size - 1
    slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) >> 20 & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def doubled(keys: Any, counts: Any) -> Any:
    """Twice as large a table with the same keys; `counts` has a number or a row for each slot."""
    size = 2 * keys.size
    new_keys = np.zeros(size, np.int64)
    new_counts = np.zeros((size, *counts.shape[1:]), np.int64)
    for i in range(keys.size):
        if keys[i] != 0:
            slot = slot_of(new_keys, keys[i])
            new_keys[slot] = keys[i]
            new_counts[slot] = counts[i]
    return new_keys, new_counts
