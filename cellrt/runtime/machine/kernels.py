"""Kernels in the form all of them have here: a few threads that stride over any number of items.

Whoever has kernels compiles, launches and hands them memory through this module. Of numba they use
only what stands inside of a kernel: places in the grid, and atomic additions.
"""

from __future__ import annotations

import threading
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import config, cuda

from cellrt.errors import EngineError

# A multiple of the warp of 32 threads that suits every GPU, and enough blocks to fill the largest.
_THREADS = 256
_MOST_BLOCKS = 1 << 14
# The simulator runs each thread as one of Python, so it gets few, in more than one block.
_SIMULATED = (2, 3)
_one_at_a_time = threading.Lock()  # the simulator has one device
_IN_SIMULATOR = bool(config.ENABLE_CUDASIM)

# A small stack fills no GPU, and nobody needs to be told so by a compiler.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def kernel(function: Any) -> Any:
    """Make a function a kernel, compiled when it is first launched and kept for later processes."""
    try:
        return cuda.jit(function, cache=True)
    except RuntimeError:  # no folder to keep it in, as on a read-only file system
        return cuda.jit(function)


def launch(kernel: Any, count: int, *arguments: Any, stream: Any = 0) -> None:
    """Queue a kernel that strides over `count` items in a stream; nothing happens for none."""
    if count <= 0:
        return
    if _IN_SIMULATOR:
        blocks, threads = _SIMULATED
        with _one_at_a_time:
            kernel[blocks, threads, stream](*arguments)
    else:
        blocks = int(min(-(-count // _THREADS), _MOST_BLOCKS))
        kernel[blocks, _THREADS, stream](*arguments)


def device_function(compiled: Any, **callees: Any) -> Any:
    """Make a function that was compiled for the CPU one that kernels can call.

    Both are compiled from one source, so that CPU and GPU follow the same rule.

    Parameters
    ----------
    compiled : numba dispatcher
        From :func:`cellrt.compiled.compiled`.
    **callees
        Device functions for the functions that it calls, by the names it calls them.
    """
    source = compiled.py_func
    if callees:
        names = {**source.__globals__, **callees}
        source = FunctionType(source.__code__, names, source.__name__, source.__defaults__)
    # In the simulator, device functions are plain functions.
    return source if _IN_SIMULATOR else cuda.jit(source, device=True)


def inner_function(function: Any) -> Any:
    """Make a function, written for the device alone, one that kernels can call.

    It calls nothing of `cuda` unless it stands in the module of those kernels.
    """
    # The simulator would replace `cuda` in this module while other threads use it.
    return function if _IN_SIMULATOR else cuda.jit(function, device=True)


@inner_function
def rounded_product(a: Any, b: Any) -> Any:
    """Product of two float32 numbers, rounded as on a CPU.

    Where a sum follows, a GPU computes both as one and rounds once.
    """
    if _IN_SIMULATOR:  # it has no library of NVIDIA's, and NumPy rounds each product
        return a * b
    return cuda.libdevice.fmul_rn(a, b)


@inner_function
def rounded_double_product(a: Any, b: Any) -> Any:
    """Product of two float64 numbers, rounded as on a CPU; see `rounded_product`."""
    if _IN_SIMULATOR:
        return a * b
    return cuda.libdevice.dmul_rn(a, b)


@inner_function
def place_of(i, height, width):  # type: ignore[no-untyped-def]
    """Plane, row and column of item `i` of planes of height x width items."""
    row = i // width
    plane = row // height
    return plane, row - plane * height, i - row * width


def empty(shape: Any, dtype: Any) -> Any:
    """Array on the device whose values are whatever was there."""
    # Integers of NumPy's, as a device's counts are, are no shape to numba-cuda.
    return cuda.device_array(tuple(map(int, np.atleast_1d(shape))), dtype)


def zeros(shape: Any, dtype: Any) -> Any:
    """Array of zeros on the device."""
    return cuda.to_device(np.zeros(shape, dtype))


def to_device(array: npt.NDArray[Any], stream: Any = 0) -> Any:
    """Copy of an array of the host on the device, queued in a stream."""
    return cuda.to_device(np.ascontiguousarray(array), stream=stream)


def wrapped(array: Any) -> Any:
    """Array of any library on the device, used where it lies (``__cuda_array_interface__``)."""
    return array if hasattr(array, "copy_to_host") else cuda.as_cuda_array(array)


def device_name() -> str:
    """Name of the GPU that kernels run on.

    Raises
    ------
    EngineError
        numba finds no GPU.
    """
    if not cuda.is_available():
        raise EngineError("it finds none")
    name = getattr(cuda.get_current_device(), "name", "simulated GPU")
    return name.decode() if isinstance(name, bytes) else str(name)


def free_bytes() -> float:
    """Free memory of the GPU that kernels run on; that of the simulator has no end."""
    return float(cuda.current_context().get_memory_info().free)
