"""Large arrays from a GPU to the host and back, at the speed of the bus.

Copied at once, memory that is not pinned goes through a small buffer of the driver's, in one
thread, which also touches each page for the first time. Here two pinned buffers take turns: one is
copied on by several threads while the other is filled.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.threads import copy_in_threads

# Large enough for several threads, small enough to stay pinned for as long as the process lives.
CHUNK_BYTES = 1 << 25
_one_at_a_time = threading.Lock()


def host_array(array: Any) -> Any:
    """Copy of a device's array on the host; an array of the host, or what is none, as it is."""
    if isinstance(array, np.ndarray) or not hasattr(array, "dtype"):
        return array
    from cellrt.runtime.machine.kernels import wrapped

    return to_host(wrapped(array))


def to_host(array: Any) -> npt.NDArray[Any]:
    """Copy a contiguous array of numba's to the host, once what is queued for it is done."""
    size = math.prod(array.shape)
    step = CHUNK_BYTES // array.dtype.itemsize
    if size <= step:
        copy: npt.NDArray[Any] = array.copy_to_host()
        return copy
    from numba import cuda

    result = np.empty(array.shape, array.dtype)
    there, here = array.reshape(size), result.reshape(size)
    parts = [slice(first, min(first + step, size)) for first in range(0, size, step)]
    with _one_at_a_time:
        pinned = [buffer.view(array.dtype) for buffer in _buffers(CHUNK_BYTES)]
        cuda.synchronize()
        stream, events = cuda.stream(), [cuda.event() for _ in pinned]

        def fetch(turn: int) -> None:
            part = parts[turn]
            there[part].copy_to_host(pinned[turn % 2][: part.stop - part.start], stream=stream)
            events[turn % 2].record(stream)

        fetch(0)
        for turn, part in enumerate(parts):
            if turn + 1 < len(parts):
                fetch(turn + 1)
            events[turn % 2].synchronize()
            copy_in_threads(pinned[turn % 2], here[part])
    return result


@functools.lru_cache(1)
def _buffers(size: int) -> list[npt.NDArray[np.uint8]]:
    from numba import cuda

    return [cuda.pinned_array(size, np.uint8) for _ in range(2)]
