"""Kernels give the same whatever the order of blocks, and if threads interrupt each other."""

from __future__ import annotations

import random
import sys
import types

import numpy as np
import pytest
from numba import config

if not config.ENABLE_CUDASIM:
    pytest.skip("a GPU has an order of its own", allow_module_level=True)

from cellrt.runtime.decoding.flows.gpu_or_cpu import decode_sample
from cellrt.runtime.decoding.flows.steps import HOST
from cellrt.runtime.decoding.star import gpu_or_cpu
from cellrt.runtime.machine import kernels
from cellrt.runtime.machine.gpu import open_device
from cellrt.runtime.network.merge import merge
from cellrt.runtime.network.merge_cuda import DeviceSums
from cellrt.runtime.network.tiles import plan_tiles


@pytest.fixture(params=range(3))
def any_order(request, monkeypatch):
    """Seven blocks of five threads, of which each block's run at once, in any order."""
    from numba.cuda.simulator import kernel

    order = random.Random(request.param)

    def shuffled(*shape):
        points = list(np.ndindex(*shape))
        order.shuffle(points)
        return points

    names = {name: getattr(np, name) for name in dir(np) if not name.startswith("_")}
    monkeypatch.setattr(kernel, "np", types.SimpleNamespace(**{**names, "ndindex": shuffled}))
    monkeypatch.setattr(kernels, "_SIMULATED", (7, 5))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_merging_gives_the_same_bits(any_order):
    gpu = open_device()
    stream = gpu.stream()
    sums = DeviceSums(gpu, stream)
    # Tiles that overlap by more than half: what moves up lies where others are still read.
    grid = plan_tiles((7, 13, 9), halo=2, blend=2, multiple=2, tile=(8, 8, 8))
    rng = np.random.default_rng(0)
    tiles = [(tile, rng.random((2, *grid.tile), dtype=np.float32)) for tile in grid]
    there = ((tile, gpu.cuda.to_device(fields)) for tile, fields in tiles)
    for block, expected in zip(merge(grid, there, sums), merge(grid, tiles), strict=True):
        packed = gpu.empty((expected.fields.size,), np.float32, stream)
        sums.pack(block.fields, 0, expected.fields.shape[1], packed)
        found = packed.copy_to_host(stream=stream).reshape(expected.fields.shape)
        np.testing.assert_array_equal(found, expected.fields)


def test_decoding_gives_the_same_labels(any_order):
    from cellrt.runtime.decoding.flows.cuda.steps import CudaSteps

    for found, expected in zip(decode_sample(CudaSteps()), decode_sample(HOST), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_drawing_shapes_gives_the_same_voxels(any_order, kind):
    from cellrt.runtime.decoding.star import rasterise_cuda

    drawn = (gpu_or_cpu.draw_sample(kind, draw) for draw in (rasterise_cuda, gpu_or_cpu.HOST))
    for found, expected in zip(*drawn, strict=True):
        np.testing.assert_array_equal(found, expected)
