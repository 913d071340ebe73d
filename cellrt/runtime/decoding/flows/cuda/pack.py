"""Merged fields packed on a GPU, in the same bits as on the CPU.

See :mod:`cellrt.runtime.decoding.flows.packed_field`.
"""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from cellrt.runtime.decoding.flows import packed_field
from cellrt.runtime.machine.kernels import device_function, kernel, place_of, rounded_product

_flow_bits = device_function(packed_field.flow_bits, times=rounded_product)
_chance_bits = device_function(packed_field.chance_bits, times=rounded_product)
_word_of = device_function(packed_field.word_of, flow_bits=_flow_bits, chance_bits=_chance_bits)


@kernel
def pack(
    fields: Any,
    first: int,
    planes: int,
    height: int,
    width: int,
    kept: Any,
    start: int,
    rows: int,
    wrong: Any,
) -> None:
    """See :class:`cellrt.runtime.decoding.base.Reduction`."""
    for i in range(cuda.grid(1), planes * height * width, cuda.gridsize(1)):
        plane, y, x = place_of(i, height, width)
        z = first + plane
        a, b, c = fields[0, z, y, x], fields[1, z, y, x], fields[2, z, y, x]
        p = fields[3, z, y, x]
        if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c) and math.isfinite(p)):
            wrong[0] = 1
        kept[start + (plane * rows + y) * width + x] = _word_of(a, b, c, p)
