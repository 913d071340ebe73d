"""Kernels that merge on a GPU, compiled for the CPU: they give the host's sums, bit for bit.

``tests/device`` runs them in numba's simulator and on GPUs.
"""

from __future__ import annotations

import functools
import types

import numpy as np
import pytest
from numba import config, njit

from cellrt.runtime.decoding.classes.most_probable_cuda import keep_most_probable
from cellrt.runtime.machine.kernels import place_of
from cellrt.runtime.network import merge_cuda
from cellrt.runtime.network.merge import merge
from cellrt.runtime.network.tiles import plan_tiles

pytestmark = pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="compiled, not simulated")

ONE_THREAD = types.ModuleType("cuda")
ONE_THREAD.grid, ONE_THREAD.gridsize = njit(lambda n: 0), njit(lambda n: 1)


class HostDevice:
    """The host's memory in the place of a device's."""

    def empty(self, shape, dtype, stream):
        return np.full(shape, 77, dtype)


@functools.cache
def compiled(kernel):
    source = kernel.py_func
    names = {**source.__globals__, "cuda": ONE_THREAD, "place_of": njit(place_of.py_func)}
    return njit(types.FunctionType(source.__code__, names, source.__name__))


@pytest.fixture
def sums(monkeypatch):
    stream = object()

    def launch(kernel, count, *arguments, stream):
        if count > 0:
            compiled(kernel)(*arguments)

    monkeypatch.setattr(merge_cuda, "launch", launch)
    monkeypatch.setattr(merge_cuda, "to_device", lambda array, stream: array)
    return merge_cuda.DeviceSums(HostDevice(), stream)


@pytest.mark.parametrize("shape", [(8, 16, 16), (20, 40, 45), (30, 9, 33)])
def test_compiled_kernels_give_the_hosts_sums(sums, shape):
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=(8, 16, 16))
    rng = np.random.default_rng(0)
    tiles = [(t, rng.standard_normal((3, *grid.tile)).astype(np.float32)) for t in grid]
    for there, here in zip(merge(grid, tiles, sums), merge(grid, tiles), strict=True):
        assert (there.z, there.y) == (here.z, here.y)
        depth = here.fields.shape[1]
        # In pieces along z, as they go to the host.
        for first in range(0, depth, 3):
            expected = here.fields[:, first : first + 3]
            packed = np.full(expected.size + 1, 77, np.float32)
            sums.pack(there.fields, first, expected.shape[1], packed)
            np.testing.assert_array_equal(packed[:-1].reshape(expected.shape), expected)
            assert packed[-1] == 77


def test_every_kernel_compiles_for_gpus_that_are_not_here(monkeypatch):
    pytest.importorskip("numba_cuda", reason="numba-cuda is an extra")
    from numba import cuda, types

    sums, axis, n = (
        types.Array(types.float32, 4, "C"),
        types.Array(types.float32, 1, "C"),
        types.int64,
    )
    signatures = {
        merge_cuda._begin: (sums, sums, n, n, n),
        merge_cuda._add_weighted: (sums, sums, axis, axis, axis, n),
        merge_cuda._carry: (sums, sums, n, n, n),
        merge_cuda._move_up: (sums, n),
        merge_cuda._pack: (sums, n, n, n, n, axis),
        keep_most_probable: (
            *(sums, n, n, n, n, types.Array(types.uint8, 1, "C"), n, n),
            types.Array(types.int32, 1, "C"),
        ),
    }
    device = type("Device", (), {})()
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    for kernel, signature in signatures.items():
        for capability in ((7, 5), (9, 0), (12, 0)):
            device.compute_capability = capability
            text, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability)
            assert ".entry" in text
