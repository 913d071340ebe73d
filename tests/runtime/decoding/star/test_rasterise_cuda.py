"""The kernels that draw shapes on GPUs give the CPU's labels, bit for bit.

In three ways, as the flow decoder's: compiled for the CPU, in numba's simulator, and on a device.
"""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config

from cellrt.errors import ResourceError
from cellrt.runtime.decoding import try_gpu
from cellrt.runtime.decoding.base import Outputs, Place
from cellrt.runtime.decoding.star import gpu_or_cpu, rasterise
from cellrt.runtime.decoding.star.candidates import LEVELS, Proposals, StarFields
from cellrt.runtime.decoding.star.decoder import StarDecoder
from cellrt.runtime.decoding.star.directions import RAYS, directions
from cellrt.runtime.decoding.star.harmonics import (
    coefficient_count,
    coefficient_names,
    radius_ranges,
)
from cellrt.runtime.decoding.star.parameters import StarParameters

MODULE = "cellrt.runtime.decoding.star.rasterise_cuda"
SIMULATED = bool(config.ENABLE_CUDASIM)
SHAPE = (6, 7, 9) if SIMULATED else (20, 24, 28)
CELLS, ORDER = (4, 2) if SIMULATED else (14, 5)
ONE = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def compiled_kernels(load_kernels, cuda_on_the_host):
    return load_kernels([MODULE], cuda_on_the_host)[0]


@pytest.fixture(scope="module", params=["simulator"] if SIMULATED else ["compiled", "device"])
def draw(request, load_kernels):
    """The module of kernels, in each way to run them."""
    if request.param == "compiled":
        return request.getfixturevalue("compiled_kernels")
    if request.param == "device":
        place = gpu_or_cpu.find_gpu("harmonics")[1]
        if place.device == "CPU":
            pytest.skip(f"no GPU draws here: {place.reason}")
    return load_kernels([MODULE])[0]


def random_shapes(kind, count=CELLS, seed=0, shape=SHAPE):
    """Centres inside and outside of the image, and bumpy shapes that overlap in all degrees."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-2, np.add(shape, 2), (count, 3))
    centres[::3] = np.rint(centres[::3])  # a voxel has no distance from them
    if kind == "rays":
        return centres, rng.uniform(1.5, 6, (count, 1)) * rng.uniform(0.6, 1.3, (count, 36))
    values = rng.normal(0, 0.4, (count, coefficient_count(ORDER)))
    values[:, 0] = rng.uniform(1.5, 5, count) * math.sqrt(4 * math.pi)
    return centres, values


def drawn(draw, kind, centres, values, shape=SHAPE, spacing=ONE, **options):
    if kind == "rays":
        return draw.rasterise_rays(
            shape, spacing, centres, values, directions(values.shape[1]), **options
        )
    reach = radius_ranges(values)[:, 1] if len(values) else np.zeros(0)
    return draw.rasterise_harmonics(shape, spacing, centres, values, reach, **options)


def assert_same(draw, kind, *shapes, **options):
    expected = drawn(rasterise, kind, *shapes, **options)
    found = drawn(draw, kind, *shapes, **options)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    return expected


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
@pytest.mark.parametrize(
    "options",
    [
        {"first": True},
        {"first": False},
        {"first": False, "limit": 1.3, "spacing": (2.1, 0.9, 0.7)},
        {"first": True, "limit": 0.8, "spacing": (0.6, 1.0, 1.3)},
    ],
    ids=["first", "deepest", "fit", "coarse"],
)
def test_labels_are_those_of_the_cpu(draw, kind, options):
    assert len(np.unique(assert_same(draw, kind, *random_shapes(kind), **options))) > 2


@pytest.mark.skipif(SIMULATED, reason="seconds for each in the simulator")
@settings(max_examples=40)
@given(
    kind=st.sampled_from(["harmonics", "rays"]),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 10_000),
    count=st.integers(0, 12),
    first=st.booleans(),
    limit=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
    spacing=st.tuples(*[st.floats(0.3, 3.0)] * 3),
)
def test_labels_are_those_of_the_cpu_for_any_shapes(
    draw, kind, shape, seed, count, first, limit, spacing
):
    shapes = random_shapes(kind, count, seed, shape)
    assert_same(draw, kind, *shapes, shape, spacing=spacing, first=first, limit=limit)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_of_equal_shapes_the_first_takes_the_voxel(draw, kind, first):
    # Twice the same, and two whose border is halfway: voxels on it are as deep in both.
    centres = np.array([[3, 3, 2], [3, 3, 2], [3, 3, 6], [3, 3, 6]], float)
    values = np.full((4, 36), 2.5)
    if kind == "harmonics":
        values[:, 0], values[:, 1:] = 2.5 * math.sqrt(4 * math.pi), 0.0
    labels = assert_same(draw, kind, centres, values, (6, 7, 9), first=first)
    assert set(np.unique(labels)) == {0, 1, 3}
    assert labels[3, 3, 4] == 1


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_nothing_is_drawn_of_nothing(draw, kind):
    centres, values = random_shapes(kind)
    assert not assert_same(draw, kind, centres[:0], values[:0]).any()
    away = centres + 100.0
    assert not assert_same(draw, kind, away, values).any()
    # No volume, or less than none.
    flat = np.zeros_like(values)
    flat[1] = -1.0
    assert_same(draw, kind, centres, flat)
    assert assert_same(draw, kind, centres, values, (0, 4, 5)).shape == (0, 4, 5)


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_slabs_and_parts_change_nothing(draw, kind, monkeypatch):
    monkeypatch.setattr(draw, "SLAB_VOXELS", 2 * SHAPE[1] * SHAPE[2] + 1)
    monkeypatch.setattr(draw, "TABLE_BYTES", 1)
    assert assert_same(draw, kind, *random_shapes(kind, seed=1), first=False).any()


def test_masks_are_those_of_the_cpu(draw):
    centres, values = random_shapes("harmonics", seed=2)
    reach = radius_ranges(values)[:, 1]
    for count in (0, len(centres)):
        given = SHAPE, centres[:count], values[:count], reach[:count]
        expected, found = rasterise.harmonic_masks(*given), draw.harmonic_masks(*given)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert expected.voxels.any()


def test_too_little_memory_is_seen_before_anything_starts(draw, monkeypatch):
    shapes = random_shapes("rays")
    needed = 12 * math.prod(SHAPE) + 2 * draw.TABLE_BYTES
    monkeypatch.setattr(draw, "free_bytes", lambda: needed)
    assert_same(draw, "rays", *shapes)
    monkeypatch.setattr(draw, "free_bytes", lambda: needed - 1)
    with pytest.raises(ResourceError, match="GB are free"):
        drawn(draw, "rays", *shapes)


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_the_sample_that_tries_a_gpu_has_its_two_shapes(draw, kind):
    expected = gpu_or_cpu.draw_sample(kind, rasterise)
    for a, b in zip(gpu_or_cpu.draw_sample(kind, draw), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(labels.max() == 2 for labels in expected[:2])


def fields(kind):
    """What is kept of a network that proposes some shapes, and the decoder for it."""
    centres, values = random_shapes(kind, seed=3)
    centres = np.clip(centres, 1, np.subtract(SHAPE, 2))
    names = coefficient_names(ORDER)
    channels = ("distance", *names) if kind == "harmonics" else rays_of(values.shape[1])
    proposals = Proposals(
        np.rint(centres).astype(np.int64),
        np.rint(centres),
        np.linspace(0.9, 0.6, len(centres)).astype(np.float32),
        values.astype(np.float32),
    )
    kept = StarFields(SHAPE, np.full(SHAPE, LEVELS, np.uint8), proposals, 0.5)
    return kept, Outputs(channels)


def rays_of(count):
    assert count in RAYS
    return ("probability", *(f"radius_{i:03d}" for i in range(count)))


@pytest.fixture
def gpu(draw, monkeypatch):
    place = Place("a GPU", "it is there")
    monkeypatch.setattr(gpu_or_cpu, "find_gpu", lambda kind: (draw, place))
    return place


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_the_decoder_uses_the_gpu_and_says_so(gpu, kind, fit):
    kept, outputs = fields(kind)
    parameters = StarParameters(fit=fit, min_distance=1.0)
    there = StarDecoder(parameters, outputs)
    here = StarDecoder(parameters, outputs, "it was asked for")
    found, expected = (each.decode(kept, mode="fast") for each in (there, here))
    assert (found.place, expected.place) == (gpu, Place("CPU", "it was asked for"))
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert expected.labels.max() > 1
    finer = tuple(n + 1 for n in SHAPE)
    found, expected = there.to_grid(found, kept, finer), here.to_grid(expected, kept, finer)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert (found.place, expected.place) == (gpu, Place("CPU", "it was asked for"))


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_where_the_gpu_fails_the_cpu_draws_and_one_line_says_so(draw, gpu, kind, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY\nmore")

    kept, outputs = fields(kind)
    there = StarDecoder(StarParameters(), outputs)
    expected = StarDecoder(StarParameters(), outputs, "asked for").decode(kept, mode="fast")
    with monkeypatch.context() as broken:
        broken.setattr(draw, f"rasterise_{kind}", fail)
        found = there.decode(kept, mode="fast")
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.place.fell_back
    assert found.place.device == "CPU"
    assert found.place.reason.startswith("a GPU could not decode (MemoryError: CUDA_ERROR_OUT")
    assert "\n" not in found.place.reason
    # It is not asked twice in a run, but in the next one.
    assert there.to_grid(found, kept, SHAPE).place == found.place
    found = there.decode(kept, mode="fast")
    assert found.place == gpu
    with monkeypatch.context() as broken:
        broken.setattr(draw, f"rasterise_{kind}", fail)
        assert there.to_grid(found, kept, SHAPE).place.fell_back


@pytest.mark.skipif(SIMULATED, reason="the simulator is never chosen")
def test_a_gpu_that_draws_otherwise_is_not_used(monkeypatch):
    kernels = pytest.importorskip("cellrt.runtime.machine.kernels")
    monkeypatch.setattr(kernels, "device_name", lambda: "a GPU")
    monkeypatch.setattr(try_gpu, "nvidia_gpus", lambda: (("a GPU",), ""))
    monkeypatch.setattr(try_gpu, "kernel_trouble", lambda: "")
    find = gpu_or_cpu.find_gpu.__wrapped__
    wrong = types.SimpleNamespace(
        rasterise_rays=lambda *given, **options: rasterise.rasterise_rays(*given, **options)[::-1]
    )
    monkeypatch.setattr(gpu_or_cpu, "_cuda", lambda: wrong)
    assert find("rays") == (None, Place("CPU", "a GPU draws small shapes otherwise than the CPU"))
    monkeypatch.setattr(gpu_or_cpu, "_cuda", lambda: rasterise)
    assert find("rays") == (rasterise, Place("a GPU", "it draws small shapes as the CPU does"))


@pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")
def test_every_kernel_compiles_for_gpus_that_are_not_here(
    monkeypatch, load_kernels, compiled_kernels
):
    pytest.importorskip("numba_cuda", reason="numba-cuda is an extra")
    from numba import cuda

    for kind in ("harmonics", "rays"):
        gpu_or_cpu.draw_sample(kind, compiled_kernels)
    (real,) = load_kernels([MODULE])
    device = types.SimpleNamespace()
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    kernels = {n: k for n, k in vars(compiled_kernels).items() if type(k).__name__ == "HostKernel"}
    for name, kernel in kernels.items():
        for signature in kernel.compiled.signatures:
            for capability in ((7, 5), (8, 7), (12, 0)):
                device.compute_capability = capability
                text, _ = cuda.compile_ptx(getattr(real, name).py_func, signature, cc=capability)
                assert ".entry" in text
                # Products that are added to something are rounded before.
                assert "fma." not in text, name
                assert ("mul.rn.f64" in text) == name.startswith(("_draw", "_fill")), name
    assert len(kernels) == 5
