"""Kernels for GPUs, compiled by numba for the CPU in place of a GPU."""

from __future__ import annotations

import importlib
import sys
import types

import numba
import numpy as np
import pytest
from numba import njit

KERNELS = "cellrt.runtime.machine.kernels"


class HostArray:
    """What a device array offers, over an array of the host."""

    def __init__(self, array):
        self.array = array
        self.shape, self.size, self.dtype = array.shape, array.size, array.dtype

    def reshape(self, *shape):
        return HostArray(self.array.reshape(*shape))

    def copy_to_host(self):
        return self.array.copy()

    def copy_to_device(self, array):
        self.array[...] = array


class HostKernel:
    """A kernel compiled for the CPU; its grid has one thread."""

    def __init__(self, function):
        self.compiled = njit(function)

    def __getitem__(self, grid):
        return lambda *arguments: self.compiled(
            *(a.array if isinstance(a, HostArray) else a for a in arguments)
        )


def device_array(shape, dtype):
    """As numba's: an integer of NumPy's is no shape there."""
    if not isinstance(shape, int):
        shape = tuple(shape)
    return HostArray(np.full(shape, 77, dtype))


@pytest.fixture(scope="session")
def cuda_on_the_host():
    """A module with as much of ``numba.cuda`` as the kernels use."""

    @njit
    def add(array, index, value):
        old = array[index]
        array[index] = old + value
        return old

    @njit
    def lower(array, index, value):
        old = array[index]
        array[index] = min(old, value)
        return old

    @njit
    def swap(array, index, expected, value):
        old = array[index]
        if old == expected:
            array[index] = value
        return old

    def jit(function=None, *, device=False, cache=False):
        if function is None:
            return lambda f: jit(f, device=device)
        return njit(function) if device else HostKernel(function)

    cuda = types.ModuleType("cuda")
    cuda.grid, cuda.gridsize = njit(lambda n: 0), njit(lambda n: 1)
    cuda.atomic = types.ModuleType("atomic")
    cuda.atomic.add, cuda.atomic.min, cuda.atomic.cas = add, lower, swap
    cuda.libdevice = types.ModuleType("libdevice")
    cuda.libdevice.fmul_rn = cuda.libdevice.dmul_rn = njit(lambda a, b: a * b)
    cuda.jit = jit
    cuda.to_device = lambda array, stream=0: HostArray(array.copy())
    cuda.device_array = device_array
    cuda.as_cuda_array = lambda array: HostArray(array.__cuda_array_interface__["data"])
    memory = types.SimpleNamespace(free=1e12)
    cuda.current_context = lambda: types.SimpleNamespace(get_memory_info=lambda: memory)
    return cuda


@pytest.fixture(scope="session")
def load_kernels():
    """Import modules of kernels afresh, with another module in place of ``numba.cuda``."""

    def load(names, numba_cuda=None, *packages):
        fresh = (*names, *packages, KERNELS)
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in sys.modules if name.startswith(fresh)]:
                patch.delitem(sys.modules, name)
            if numba_cuda is not None:
                patch.setattr(numba, "cuda", numba_cuda, raising=False)
            modules = [importlib.import_module(name) for name in names]
            for name in [name for name in sys.modules if name.startswith(fresh)]:
                del sys.modules[name]
        return modules

    return load
