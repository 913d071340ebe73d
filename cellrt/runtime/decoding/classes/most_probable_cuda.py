"""The most probable class of each voxel, found on a GPU."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from cellrt.runtime.decoding.classes import class_map
from cellrt.runtime.machine.kernels import device_function, kernel, place_of

_most_probable = device_function(class_map.most_probable)


@kernel
def keep_most_probable(
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
        if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
            wrong[0] = 1
        kept[start + (plane * rows + y) * width + x] = _most_probable(a, b, c)
