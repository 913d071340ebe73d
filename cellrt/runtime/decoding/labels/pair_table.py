"""Open addressing for tables of touching pairs inside kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellrt.compiled import compiled, inlined


@compiled
def slot_of(table: Any, key: Any) -> Any:
    """Row of `key` in a table of 2**n rows, or the free one where it belongs.

    The first column has the keys, 0 in a free row; the others have what is counted.
    """
    mask = table.shape[0] - 1
    slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) >> 20 & mask
    while table[slot, 0] != 0 and table[slot, 0] != key:
        slot = (slot + 1) & mask
    return slot


@inlined
def claimed(table: Any, key: Any, used: Any) -> Any:
    """Find the row of `key`, which it gets where it has none.

    Returns
    -------
    table : array
        Twice as large a one where it is full; else the same.
    slot : int
    used : int
        Rows that are taken, with this one.
    """
    slot = slot_of(table, key)
    if table[slot, 0] == 0:
        if 2 * used > table.shape[0]:
            table = doubled(table)
            slot = slot_of(table, key)
        table[slot, 0] = key
        used += 1
    return table, slot, used


@compiled
def doubled(table: Any) -> Any:
    """Twice as large a table with the same keys."""
    larger = np.zeros((2 * table.shape[0], table.shape[1]), np.int64)
    for i in range(table.shape[0]):
        if table[i, 0] != 0:
            slot = slot_of(larger, table[i, 0])
            for k in range(table.shape[1]):
                larger[slot, k] = table[i, k]
    return larger
