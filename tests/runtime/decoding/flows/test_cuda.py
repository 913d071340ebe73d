"""The flow decoder's kernels for GPUs give the CPU's labels, bit for bit.

They run in three ways. *compiled*: compiled by numba for the CPU in place of a GPU, one thread,
fast enough for real volumes; checks types and arithmetic. *simulator*: numba's CUDA simulator,
several threads at once and atomics, on small volumes; it has to be chosen before numba is imported,
so ``tests/test_simulator.py`` starts these in a process of their own. *device*: a GPU, where there
is one.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config
from scipy import ndimage
from scipy.spatial import cKDTree

from cellrt.errors import ResourceError
from cellrt.runtime.decoding import try_gpu
from cellrt.runtime.decoding.base import Place
from cellrt.runtime.decoding.flows import gpu_or_cpu
from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_packed
from cellrt.runtime.decoding.flows.decoder import FlowDecoder
from cellrt.runtime.decoding.flows.packed_field import pack_field
from cellrt.runtime.decoding.flows.sinks import basin_contacts, number_sinks
from cellrt.runtime.decoding.flows.steps import HOST
from cellrt.runtime.decoding.flows.targets import heat_flow, tanh_flow
from cellrt.runtime.decoding.flows.trace import follow_pointers

PACKAGE = "cellrt.runtime.decoding.flows.cuda"
SIMULATED = bool(config.ENABLE_CUDASIM)
SHAPE = (5, 14, 16) if SIMULATED else (24, 40, 48)
PLAIN = FlowParameters(radius_range=(1.5, 100.0))
EVERYTHING = FlowParameters(
    radius_range=(1.5, 100.0), wall_thickness=2.5, min_probability=0.55, max_flow_error=0.7
)


class ForeignArray:
    """What another library's device array offers; here its address is an array."""

    def __init__(self, array):
        self.__cuda_array_interface__ = {"data": array}
        self.shape = array.shape


NAMES = ("steps", "trace", "sinks", "regions", "flow_error", "upsample", "pack")


@pytest.fixture(scope="module")
def load(load_kernels):
    """Import the package of kernels afresh, with another module in place of ``numba.cuda``."""

    def load(numba_cuda=None):
        modules = load_kernels([f"{PACKAGE}.{name}" for name in NAMES], numba_cuda, PACKAGE)
        return types.SimpleNamespace(**dict(zip(NAMES, modules, strict=True)))

    return load


@pytest.fixture(scope="module")
def compiled_kernels(load, cuda_on_the_host):
    return load(cuda_on_the_host)


@pytest.fixture(scope="module", params=["simulator"] if SIMULATED else ["compiled", "device"])
def kernels(request, load):
    """The modules of kernels, in each way to run them."""
    if request.param == "compiled":
        return request.getfixturevalue("compiled_kernels")
    if request.param == "device" and gpu_or_cpu.find_gpu()[0] is None:
        pytest.skip(f"no GPU decodes here: {gpu_or_cpu.find_gpu()[1].reason}")
    return load()


@pytest.fixture(scope="module")
def steps(kernels):
    return kernels.steps.CudaSteps()


def cells(shape, seed, *, gap=0.0):
    """Voronoi cells about 8 voxels across, with walls of `gap` voxels."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (max(3, int(np.prod(shape)) // 400), 3)) * shape
    grid = np.indices(shape).reshape(3, -1).T
    distance, owner = cKDTree(seeds).query(grid, k=2)
    labels = np.where(distance[:, 1] - distance[:, 0] < gap, 0, owner[:, 0] + 1)
    return labels.reshape(shape).astype(np.int32)


def like_a_network(labels, seed):
    """Blurred, noisy field and foreground."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.25, (4, *labels.shape))
    flow = np.stack([ndimage.gaussian_filter(g, 0.7) for g in tanh_flow(labels)]) + noise[:3]
    foreground = ndimage.gaussian_filter((labels > 0).astype(float), 0.6) + 0.4 * noise[3]
    return pack_field(flow.clip(-1, 1).astype(np.float32), foreground.astype(np.float32))


def random_field(shape, seed):
    rng = np.random.default_rng(seed)
    flow = rng.uniform(-1, 1, (3, *shape)).astype(np.float32)
    return pack_field(flow, rng.random(shape, dtype=np.float32))


def with_nan():
    truth = cells(SHAPE, 3)
    flow, foreground = tanh_flow(truth), np.ones(SHAPE, np.float32)
    flow[1, 2, 3:6] = np.nan
    foreground[:, 5] = np.nan
    flow[0, :, :, 7] = np.inf
    return pack_field(flow, foreground)


def constant(foreground, shape=SHAPE):
    return pack_field(np.zeros((3, *shape), np.float32), np.full(shape, foreground, np.float32))


FIELDS = {
    "perfect": lambda: pack_field(tanh_flow(cells(SHAPE, 0)), cells(SHAPE, 0) > 0),
    "network": lambda: like_a_network(cells(SHAPE, 1, gap=1.5), 1),
    "random": lambda: random_field(SHAPE if SIMULATED else (9, 20, 21), 2),
    "nan": with_nan,
    "slice": lambda: like_a_network(cells((1, 24, 30), 4, gap=1.5), 4),
    "line": lambda: like_a_network(cells((1, 1, 40), 5, gap=1.5), 5),
    "voxel": lambda: constant(1.0, (1, 1, 1)),
    "no flow": lambda: constant(1.0),
    "blank": lambda: constant(0.0),
    "empty": lambda: np.zeros((0, 4, 5), np.uint32),
}


def assert_same(packed, parameters, steps):
    before = packed.copy()
    expected, evidence = decode_packed(packed, parameters)
    labels, found = decode_packed(packed, parameters, steps=steps)
    assert found.volume == evidence.volume
    for name, values in evidence.cells.items():
        np.testing.assert_array_equal(found.cells[name], values)
    assert labels.dtype == expected.dtype
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(packed, before)
    return expected


@pytest.mark.parametrize("field", FIELDS)
def test_labels_are_those_of_the_cpu(steps, field):
    expected = assert_same(FIELDS[field](), EVERYTHING, steps)
    assert field not in ("perfect", "network", "slice") or expected.max() >= 2


@pytest.mark.skipif(SIMULATED, reason="seconds per field in the simulator")
@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 16), st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 10_000),
    noise_only=st.booleans(),
    parameters=st.builds(
        FlowParameters,
        step=st.sampled_from([0.7, 2.0, 4.0, 9.0]),
        closing_radius=st.sampled_from([0.0, 3.0]),
        radius_range=st.sampled_from([(0.0, 100.0), (1.5, 6.0)]),
        min_overlap=st.sampled_from([0.0, 0.7]),
        max_flow_error=st.sampled_from([0.3, 0.8, 2.0]),
        foreground_threshold=st.sampled_from([0.0, 0.5, 0.8]),
        min_probability=st.sampled_from([0.0, 0.7]),
        wall_thickness=st.sampled_from([0.0, 1.0, 3.0, 9.0]),
    ),
)
def test_labels_are_those_of_the_cpu_for_any_field_and_parameters(
    steps, shape, seed, noise_only, parameters
):
    packed = (
        random_field(shape, seed)
        if noise_only
        else like_a_network(cells(shape, seed, gap=seed % 3), seed)
    )
    assert_same(packed, parameters, steps)


@pytest.mark.skipif(SIMULATED, reason="other targets are computed on the CPU")
@pytest.mark.parametrize("target", ["heat", "centroid"])
def test_flow_errors_of_other_targets_come_from_the_cpu(steps, target):
    truth = cells(SHAPE, 6, gap=2.0)
    packed = pack_field(heat_flow(truth), truth > 0)
    parameters = FlowParameters(radius_range=(1.5, 50.0), target=target, max_flow_error=0.25)
    assert_same(packed, parameters, steps)


@pytest.mark.parametrize("scale", [(2.0, 1.3, 0.6), (1.0, 1.0, 1.0), (0.2, 3.0, 0.9)])
@pytest.mark.parametrize("walls", [False, True])
def test_labels_on_another_grid_are_those_of_the_cpu(steps, scale, walls):
    if SIMULATED and (walls or scale[0] < 1):
        pytest.skip("one of each in the simulator")
    packed = like_a_network(cells(SHAPE, 7, gap=1.0), 7)
    labels = decode_packed(packed, PLAIN).labels
    shape = tuple(max(1, int(n * s)) for n, s in zip(SHAPE, scale, strict=True))
    options = {"step": 4.0, "threshold": 0.5, "walls": walls}
    expected = HOST.upsample(labels, packed, shape, **options)
    np.testing.assert_array_equal(steps.upsample(labels, packed, shape, **options), expected)
    assert expected.any()


def test_fields_are_packed_into_the_words_of_the_cpu(kernels):
    # Planes, rows and columns of a larger array go to a place in a larger one.
    device = kernels.steps.CudaSteps().field
    rng = np.random.default_rng(0)
    planes, height, width = (3, 5, 9) if SIMULATED else (12, 40, 50)
    fields = rng.normal(0, 0.7, (4, planes + 3, height + 1, width + 2)).astype(np.float32)
    # Where a sum that is rounded once may differ from one that is rounded twice; and limits.
    edges = np.float32([k / 254 for k in range(-256, 257)] + [k / 510 for k in range(-2, 513)])
    near = np.concatenate([edges, *(np.nextafter(edges, np.float32(s)) for s in (-2, 2))])
    fields.flat[: fields.size // 2] = rng.choice(near, fields.size // 2)
    fields[:, 0, 0, 0] = np.nan  # in no plane that is taken
    kept = device(np.full((planes + 1, height + 4, width), 7, np.uint32))
    wrong = device(np.zeros(1, np.int32))

    def pack(fields):
        box = (2, planes, height, width)
        place = (kept.reshape(kept.size), (height + 4 + 3) * width, height + 4)
        count = planes * height * width
        kernels.trace.launch(kernels.pack.pack, count, device(fields), *box, *place, wrong)
        return bool(wrong.copy_to_host()[0])

    assert not pack(fields)
    taken = np.ascontiguousarray(fields[:, 2 : 2 + planes, :height, :width])
    expected = np.full(kept.shape, 7, np.uint32)
    expected[1:, 3:-1] = pack_field(taken[:3], taken[3])
    np.testing.assert_array_equal(kept.copy_to_host(), expected)
    for channel, value in enumerate((np.nan, np.inf, -np.inf, np.nan)):
        wrong.copy_to_device(np.zeros(1, np.int32))
        broken = fields.copy()
        broken[channel, -2, 1, 2] = value
        assert pack(broken)


def random_pointers(size, seed, background=0.2):
    """A random functional graph: trees, cycles of any length, fixed points, background."""
    rng = np.random.default_rng(seed)
    inside = np.flatnonzero(rng.random(size) > background)
    pointers = np.full(size, -1, np.int32)
    if inside.size:
        pointers[inside] = rng.choice(inside, inside.size)
    return pointers


@pytest.mark.parametrize("most_moves", [1024, 3])
@settings(max_examples=10 if SIMULATED else 60)
@given(size=st.integers(1, 300), seed=st.integers(0, 10_000))
def test_paths_and_cycles_end_where_the_cpu_ends_them(kernels, most_moves, size, seed):
    pointers = random_pointers(size, seed)
    expected = pointers.copy()
    follow_pointers(expected)
    sinks = number_sinks(expected)
    numbers = kernels.steps.CudaSteps().field(pointers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.trace, "MOST_MOVES", most_moves)
        found = kernels.trace.follow_and_number(numbers)
    np.testing.assert_array_equal(found, sinks)
    np.testing.assert_array_equal(numbers.copy_to_host(), expected)


@pytest.mark.parametrize("slots", [16, 0.01])
def test_contacts_are_those_of_the_cpu_also_where_the_table_has_to_grow(
    kernels, steps, monkeypatch, slots
):
    monkeypatch.setattr(kernels.sinks, "SLOTS_PER_BASIN", slots)
    packed = random_field((4, 9, 10) if SIMULATED else SHAPE, 8)
    basins, sinks = HOST.basins(packed, 4.0, 0.2)
    expected = basin_contacts(basins, packed, sinks, 3.0)
    found = steps.contacts(steps.field(basins), steps.field(packed), sinks, 3.0)
    for a, b in zip(ordered(found), ordered(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert expected.near.any()
    assert not expected.near.all()


@pytest.mark.skipif(not SIMULATED, reason="only the simulator's threads can be held up")
def test_threads_that_interrupt_each_other_at_every_read_change_nothing(steps, monkeypatch):
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    read, waits = FakeCUDAArray.__getitem__, random.Random(0)

    def read_and_wait(array, index):
        value = read(array, index)
        time.sleep(waits.choice((0.0, 2e-3)))  # another thread goes on meanwhile
        return value

    monkeypatch.setattr(FakeCUDAArray, "__getitem__", read_and_wait)
    # Two cells with one contact, at which all threads meet.
    truth = np.repeat(np.int32([[[1], [2]]]), 30, axis=2)
    packed = random_field(truth.shape, 0)
    sinks = np.array([0, 30])
    expected = basin_contacts(truth, packed, sinks, 3.0)
    found = steps.contacts(steps.field(truth), steps.field(packed), sinks, 3.0)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    one_cell = np.ones((1, 20, 9), np.int32)
    counted = steps.count_regions(steps.field(one_cell), 1)
    assert counted.volumes[1] == 180
    assert counted.first[1] == 0
    certain = steps.field(np.full((1, 20, 9), 0xFF000000, np.uint32))
    assert steps.probability_sums(steps.field(one_cell), certain, 1)[1] == 255 * 180


def ordered(contacts):
    order = np.lexsort((contacts.second, contacts.first))
    return [column[order] for column in contacts]


@pytest.fixture
def decoder(steps, monkeypatch):
    monkeypatch.setattr(gpu_or_cpu, "find_gpu", lambda: (steps, Place("a GPU", "it is there")))
    return FlowDecoder(PLAIN)


def test_the_decoder_uses_the_gpu_and_says_so(decoder, steps):
    packed = like_a_network(cells(SHAPE, 9), 9)
    finer = tuple(n + 1 for n in SHAPE)
    cpu = FlowDecoder(PLAIN, keep_to_cpu="it was asked for")
    expected = cpu.decode(packed, mode="fast")
    found = decoder.decode(packed, mode="fast")
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.place == Place("a GPU", "it is there")
    assert expected.place == Place("CPU", "it was asked for")
    # A field that is on the device already is neither copied nor changed.
    kept = steps.field(packed)
    assert steps.field(kept) is kept
    again = decoder.decode(kept, mode="fast")
    np.testing.assert_array_equal(again.labels, expected.labels)
    there, here = decoder.to_grid(found, kept, finer), cpu.to_grid(expected, packed, finer)
    np.testing.assert_array_equal(there.labels, here.labels)
    assert (there.place, here.place) == (found.place, expected.place)
    np.testing.assert_array_equal(kept.copy_to_host(), packed)


@pytest.mark.skipif(SIMULATED, reason="the simulator takes no arrays of other libraries")
def test_a_field_of_another_library_is_used_where_it_lies(monkeypatch, compiled_kernels):
    steps = compiled_kernels.steps.CudaSteps()
    monkeypatch.setattr(gpu_or_cpu, "find_gpu", lambda: (steps, Place("a GPU", "it is there")))
    decoder = FlowDecoder(PLAIN)
    packed = like_a_network(cells(SHAPE, 13), 13)
    found = decoder.decode(ForeignArray(packed), mode="fast")
    assert found.place.device == "a GPU"
    np.testing.assert_array_equal(found.labels, decode_packed(packed, PLAIN).labels)


@pytest.mark.parametrize("error", [MemoryError("CUDA_ERROR_OUT_OF_MEMORY\nmore"), ValueError("")])
def test_where_the_gpu_fails_the_cpu_decodes_and_one_line_says_so(
    decoder, steps, monkeypatch, error
):
    def fail(*arguments):
        raise error

    packed = like_a_network(cells(SHAPE, 10), 10)
    with monkeypatch.context() as broken:
        broken.setattr(steps, "contacts", fail, raising=False)
        found = decoder.decode(packed, mode="fast")
        np.testing.assert_array_equal(found.labels, decode_packed(packed, PLAIN).labels)
        assert found.place.device == "CPU"
        assert found.place.fell_back
        assert type(error).__name__ in found.place.reason
        assert "\n" not in found.place.reason
        assert decoder.to_grid(found, packed, SHAPE).place == found.place
    # What went wrong once is said of that run, and the next one asks the GPU again.
    assert decoder.decode(packed, mode="fast").place.device == "a GPU"


def test_too_little_device_memory_is_seen_before_anything_starts(decoder, kernels, monkeypatch):
    packed = like_a_network(cells(SHAPE, 11), 11)

    def free(size):
        monkeypatch.setattr(kernels.steps, "free_bytes", lambda: size)

    steps = kernels.steps.CudaSteps()
    needed, finer = 8 * packed.size, (packed.size, 2, 3)
    free(needed)
    steps.check_memory(packed)
    free(needed - 1)
    with pytest.raises(ResourceError, match="GB are free"):
        steps.check_memory(packed)
    steps.check_memory(steps.field(packed))
    with pytest.raises(ResourceError):
        steps.check_memory(steps.field(packed), finer)
    found = decoder.decode(packed, mode="fast")
    np.testing.assert_array_equal(found.labels, decode_packed(packed, PLAIN).labels)
    assert found.place.fell_back
    assert "device memory" in found.place.reason


def test_the_exact_mode_and_agreement_take_a_field_from_the_device(decoder, steps):
    packed = like_a_network(cells((4, 10, 11), 12), 12)
    found = decoder.decode(steps.field(packed), mode="exact")
    np.testing.assert_array_equal(found.labels, decode_packed(packed, PLAIN, mode="exact").labels)
    assert found.place.device == "CPU"
    assert "exact" in found.place.reason
    assert decoder.agreement(found, steps.field(packed)) == decoder.agreement(found, packed)
    # It leaves a later fast run on its GPU.
    assert decoder.decode(packed, mode="fast").place.device == "a GPU"


@pytest.mark.skipif(SIMULATED, reason="seconds in the simulator")
def test_the_sample_that_tries_a_gpu_has_its_two_cells(steps):
    for labels, expected in zip(
        gpu_or_cpu.decode_sample(steps), gpu_or_cpu.decode_sample(HOST), strict=True
    ):
        np.testing.assert_array_equal(labels, expected)
        assert expected.max() == 2


def name_the_gpu(monkeypatch):
    # The module that is imported next: `load` leaves another one behind in its package.
    kernels = importlib.import_module("cellrt.runtime.machine.kernels")
    monkeypatch.setattr(kernels, "device_name", lambda: "a GPU")


@pytest.mark.skipif(SIMULATED, reason="the simulator is never chosen")
class TestWithoutUse:
    """What is said where no GPU decodes."""

    def find(self):
        return gpu_or_cpu.find_gpu.__wrapped__()

    @pytest.fixture
    def gpu(self, monkeypatch):
        monkeypatch.setattr(try_gpu, "nvidia_gpus", lambda: (("a GPU",), ""))
        monkeypatch.setattr(try_gpu, "kernel_trouble", lambda: "")

    def test_without_a_driver(self, monkeypatch):
        monkeypatch.setattr(try_gpu, "nvidia_gpus", lambda: ((), "no NVIDIA driver found"))
        assert self.find() == (None, Place("CPU", "no NVIDIA driver found"))

    def test_what_is_known_to_keep_numba_from_compiling_is_said(self, gpu, monkeypatch):
        monkeypatch.setattr(try_gpu, "kernel_trouble", lambda: "numpy is too new")
        assert self.find() == (None, Place("CPU", "numpy is too new"))

    def test_where_numba_finds_nothing_it_says_what_to_install(self, gpu, monkeypatch):
        monkeypatch.setitem(sys.modules, f"{PACKAGE}.steps", None)
        steps, found = self.find()
        assert steps is None
        assert "numba cannot use the GPU" in found.reason

    def test_one_that_decodes_otherwise_is_not_used(self, gpu, monkeypatch):
        class Wrong:
            def __getattr__(self, name):
                return getattr(HOST, name)

            def to_host(self, labels):
                return labels[..., ::-1]

        name_the_gpu(monkeypatch)
        module = types.SimpleNamespace(CudaSteps=Wrong)
        monkeypatch.setitem(sys.modules, f"{PACKAGE}.steps", module)
        assert self.find() == (
            None,
            Place("CPU", "a GPU decodes a small field otherwise than the CPU"),
        )

    def test_a_right_one_is_used(self, gpu, monkeypatch):
        name_the_gpu(monkeypatch)
        module = types.SimpleNamespace(CudaSteps=lambda: HOST)
        monkeypatch.setitem(sys.modules, f"{PACKAGE}.steps", module)
        steps, found = self.find()
        assert steps is HOST
        assert found.device == "a GPU"


@pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")
def test_every_kernel_compiles_for_gpus_that_are_not_here(monkeypatch, load, compiled_kernels):
    pytest.importorskip("numba_cuda", reason="numba-cuda is an extra")
    from numba import cuda

    typed, real = compiled_kernels, load()
    assert_same(FIELDS["network"](), EVERYTHING, typed.steps.CudaSteps())
    test_fields_are_packed_into_the_words_of_the_cpu(typed)
    assert gpu_or_cpu.decode_sample(typed.steps.CudaSteps())[0].max() == 2
    device = types.SimpleNamespace()
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    compiled = set()
    for module in vars(typed):
        kernels = vars(getattr(typed, module)).items()
        for name, kernel in [(n, k) for n, k in kernels if type(k).__name__ == "HostKernel"]:
            function = getattr(getattr(real, module), name).py_func
            for signature in kernel.compiled.signatures:
                for capability in ((7, 5), (8, 7), (12, 0)):
                    device.compute_capability = capability
                    text, _ = cuda.compile_ptx(function, signature, cc=capability)
                    assert ".entry" in text
                    # A GPU rounds sums of floating point numbers in its own way: there are none.
                    assert "fma." not in text, name
                    assert "add.f" not in text or name == "pack", name
                compiled.add(name)
    assert len(compiled) >= 14
