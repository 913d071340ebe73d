"""TensorRT as an engine: the real TensorRT-RTX builds, and below its runtime a thin fake computes.

The fake gets the addresses and shapes that the real runtime would get, and runs the same graph in
ONNX Runtime on the memory there.
"""

from __future__ import annotations

import ctypes
import types

import numpy as np
import pytest
from numba import config

import cellrt
from cellrt.errors import CellrtWarning, EngineError
from cellrt.runtime.machine.driver import Gpu
from cellrt.runtime.machine.gpu import Device, DeviceMemoryError, open_device
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines.gpu_session import LARGEST_BATCH, SpreadSession
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.engines.tensorrt import provide
from cellrt.runtime.network.engines.tensorrt import session as tensorrt_session
from cellrt.runtime.network.engines.tensorrt.build import Profile
from cellrt.runtime.network.engines.tensorrt.cache import default_cache
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS, LEAN, TensorRT, open_library
from cellrt.runtime.network.engines.tensorrt.provide import (
    Builder,
    choose_builder,
    engine_key,
    obtain_engine,
)
from cellrt.runtime.network.engines.tensorrt.session import TensorRTSession
from cellrt.runtime.progress import Silent

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="device addresses are read on the host, which only the simulator's can be",
)

ADA = Gpu("NVIDIA RTX 4000 Ada", "20475 MiB", "560.35", "8.9")
TILE = (16, 32, 32)
REAL = open_library("tensorrt-rtx")


def memory_at(address, shape):
    size = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address)).reshape(shape)


class Context:
    """Runs the graph on the memory whose addresses it was given."""

    def __init__(self, behaviour):
        self.behaviour = behaviour
        self.addresses = {}
        self.shape = None

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return shape[0] <= 4 and tuple(shape[2:]) == TILE

    def update_device_memory_size_for_shapes(self):
        return 100 * int(np.prod(self.shape))

    def set_device_memory(self, address, size):
        assert size >= self.update_device_memory_size_for_shapes()

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        self.behaviour.runs.append(self.shape[0])
        image = memory_at(self.addresses["image"], self.shape)
        (fields,) = self.behaviour.session.run(None, {"image": image})
        fields = fields * self.behaviour.factor
        name = next(name for name in self.addresses if name != "image")
        memory_at(self.addresses[name], fields.shape)[:] = fields
        return self.behaviour.works


class Behaviour:
    """What the fake runtime does, and what was asked of it."""

    def __init__(self):
        path = str(open_model("nuclei").path)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.runs: list[int] = []
        self.loaded: list[bytes] = []
        self.factor = 1.0
        self.works = True

    def engine(self, data):
        self.loaded.append(data)
        names = ["image", "fields"]
        return types.SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=names.__getitem__,
            get_tensor_mode=lambda name: (
                REAL.api.TensorIOMode.INPUT if name == "image" else REAL.api.TensorIOMode.OUTPUT
            ),
            get_tensor_shape=lambda name: (-1, 4 if name == "fields" else 1, *TILE),
            get_tensor_profile_shape=lambda name, profile: [(n, 1, *TILE) for n in (1, 4, 4)],
            create_execution_context=lambda settings: Context(self),
        )


class Api:
    """TensorRT-RTX with another runtime."""

    def __init__(self, behaviour):
        self.Runtime = lambda logger: types.SimpleNamespace(
            deserialize_cuda_engine=behaviour.engine
        )

    def __getattr__(self, name):
        return getattr(REAL.api, name)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    behaviour = Behaviour()
    library = TensorRT(REAL.flavour, Api(behaviour), REAL.version)

    def open_fake(name):
        if name != "tensorrt-rtx":
            raise EngineError("tensorrt is not installed")
        return library

    monkeypatch.setattr(tensorrt_session, "open_runtime", open_fake)
    monkeypatch.setattr(provide, "open_library", open_fake)
    for module in (tensorrt_session, provide):
        monkeypatch.setattr(module, "nvidia_gpus", lambda: ((ADA,), ""))
    monkeypatch.setenv("CELLRT_ENGINES", str(tmp_path / "engines"))
    return behaviour


@pytest.fixture(scope="module")
def stack():
    from cellrt.simulation import NucleiParameters, simulate_nuclei

    shape = (16, 48, 40)
    return simulate_nuclei(shape, nuclei=NucleiParameters(filling=0.2), seed=7).image


class Notes(Silent):
    """A progress display that keeps the notes."""

    def __init__(self):
        self.lines = []

    def note(self, text, *, warning=False):
        self.lines.append(text)


def segment(stack, **options):
    notes = Notes()
    result = cellrt.segment(
        stack,
        "nuclei",
        diameter=16,
        tile=TILE,
        progress=notes,
        **{"engine": "tensorrt-rtx"} | options,
    )
    return result, notes.lines


def test_segmenting_builds_verifies_and_runs_an_engine_once(gpu, stack):
    first, notes = segment(stack)
    expected, _ = segment(stack, engine="onnxruntime")
    np.testing.assert_array_equal(first.labels, expected.labels)
    assert first.labels.max() > 2
    assert any("building an engine of nuclei in fp32: there is none yet" in n for n in notes)
    assert any("comparing the new engine" in note for note in notes)
    engine = first.record["engine"]
    assert (engine["name"], engine["device"]) == ("tensorrt-rtx", "NVIDIA RTX 4000 Ada")
    assert max(gpu.runs) > 1  # in batches

    again, notes = segment(stack)
    np.testing.assert_array_equal(again.labels, expected.labels)
    assert not any("engine of" in note for note in notes)
    assert len(set(gpu.loaded)) == 1
    assert list(default_cache().folder.glob("*.verified"))


def test_an_engine_that_was_tampered_with_is_built_again_and_the_reason_said(gpu, stack):
    segment(stack)
    (path,) = default_cache().folder.glob("*.engine")
    genuine = path.read_bytes()
    path.write_bytes(genuine[:-1] + b"?")
    _, notes = segment(stack)
    assert any("is not the one that was recorded" in note for note in notes)
    assert all(data[-1:] != b"?" or data == genuine for data in gpu.loaded)


def test_a_precision_that_was_not_built_is_refused_with_the_command(gpu):
    with pytest.raises(EngineError, match="cellrt build nuclei --engine tensorrt-rtx --precision"):
        choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "fp16")


def test_an_fp16_engine_that_was_built_is_taken(gpu):
    model = open_model("nuclei")
    builder = choose_builder("tensorrt-rtx")
    obtain_engine(
        model, builder, default_cache(), tile=TILE, precision="fp16", convert=model.path.read_bytes
    )
    load = choose_engine("tensorrt-rtx").load
    assert load(model, TILE, "auto").precision == "fp16"
    assert load(model, TILE, "fp16").precision == "fp16"
    assert load(model, TILE, "fp32").precision == "fp32"


@pytest.mark.parametrize(("targets", "found"), [(("sm89", "sm120"), True), (("sm86",), False)])
def test_an_engine_built_ahead_of_time_is_found_by_the_gpus_it_is_for(gpu, targets, found):
    model, notes = open_model("nuclei"), []
    builder = choose_builder("tensorrt-rtx", targets)
    data, _ = obtain_engine(model, builder, default_cache(), tile=TILE)
    choose_engine("tensorrt-rtx").load(model, TILE, "auto", notes.append)
    assert (gpu.loaded == [data]) is found
    assert any("building" in note for note in notes) is not found


def with_gpu(monkeypatch, capability):
    other = Gpu("NVIDIA other", "24 GiB", "580.95", capability)
    for module in (tensorrt_session, provide):
        monkeypatch.setattr(module, "nvidia_gpus", lambda: ((other,), ""))


@pytest.mark.parametrize("capability", ["9.0", "8.7", "6.1"])
def test_a_gpu_without_kernels_is_passed_over_with_the_reason(gpu, monkeypatch, capability):
    with_gpu(monkeypatch, capability)
    choice = choose_engine(None, open_model("nuclei"))
    assert choice.name != "tensorrt-rtx"
    assert capability in dict(choice.skipped)["tensorrt-rtx"]
    with pytest.raises(EngineError, match=f"this one has {capability}"):
        choose_engine("tensorrt-rtx")
    assert gpu.loaded == []


def test_turing_runs_fp16_and_is_passed_over_for_others_with_the_command(gpu, monkeypatch):
    with_gpu(monkeypatch, "7.5")
    model = open_model("nuclei")
    choice = choose_engine(None, model, tile=TILE)
    assert choice.name != "tensorrt-rtx"
    assert any("--precision fp16" in text for text in choice.warnings)
    assert not default_cache().folder.exists()  # nothing was tried
    builder = choose_builder("tensorrt-rtx", ["sm75"])
    profile = Profile(TILE, LARGEST_BATCH)
    default_cache().store(engine_key(model, builder, profile, "fp16"), b"an engine", 1.0)
    choice = choose_engine(None, model, tile=TILE)
    assert choice.name == "tensorrt-rtx"
    assert choice.load(model, TILE, "auto").precision == "fp16"
    with pytest.raises(EngineError, match="only in fp16"):
        choice.load(model, TILE, "fp32")


def test_an_engine_that_computes_nonsense_is_replaced_where_nobody_asked_for_it(gpu, stack):
    gpu.factor = 0.7
    with pytest.warns(CellrtWarning, match="engine tensorrt-rtx failed"):
        first, _ = segment(stack, engine=None)
    assert first.record["engine"]["name"] != "tensorrt-rtx"
    runs = len(gpu.runs)
    with pytest.warns(CellrtWarning, match="engine tensorrt-rtx is not taken: it failed on"):
        segment(stack, engine=None)
    assert len(gpu.runs) == runs


def test_an_engine_that_computes_nonsense_is_refused_every_time(gpu):
    gpu.factor = 0.7
    for _ in range(2):
        with pytest.raises(EngineError, match="computes something else than the CPU"):
            choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "auto")
    assert not list(default_cache().folder.glob("*.verified"))


def test_an_engine_that_fails_says_so_in_one_line(gpu):
    gpu.works = False
    with pytest.raises(EngineError, match="tensorrt-rtx failed") as raised:
        choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "auto")
    assert "\n" not in str(raised.value)


def test_an_engine_that_does_not_load_says_why(gpu):
    # The real runtime, which finds no driver here and refuses what is no engine elsewhere.
    with pytest.raises(EngineError, match="cellrt build --clear") as raised:
        TensorRTSession(REAL, b"not an engine", open_device(), "fp32", ADA.name)
    assert "\n" not in str(raised.value)


def test_little_device_memory_means_smaller_batches_with_the_same_cells(gpu, stack, monkeypatch):
    expected, _ = segment(stack)
    gpu.runs.clear()
    real = Device.empty

    def small(self, shape, dtype, stream):
        # Room for the work on two tiles.
        if dtype == np.uint8 and np.prod(shape) > 250 * np.prod(TILE):
            raise DeviceMemoryError("too little device memory (that is all)")
        return real(self, shape, dtype, stream)

    monkeypatch.setattr(Device, "empty", small)
    result, notes = segment(stack)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert any("going on with 2 at a time" in note for note in notes)
    assert max(gpu.runs) == 2


def test_the_ladder_takes_tensorrt_rtx_and_says_why_not_tensorrt(gpu):
    choice = choose_engine()
    assert choice.name == "tensorrt-rtx"
    assert "tensorrt is not installed" in dict(choice.skipped)["tensorrt"]
    assert "NVIDIA RTX 4000 Ada" in choice.reason
    assert choice.fixed_tile(open_model("nuclei")) == open_model("nuclei").card.tile


@pytest.mark.parametrize(
    ("built_with", "runtime", "found"),
    [("11.4.0.106", "11.4.0.106", True), ("10.13.3", "11.4", True), ("11.4.0", "11.3.0", False)],
)
def test_the_lean_runtime_takes_engines_that_were_built_for_it(
    gpu, monkeypatch, built_with, runtime, found
):
    model, profile = open_model("nuclei"), Profile(TILE, LARGEST_BATCH, lean=True)
    full = Builder(TensorRT(FLAVOURS["tensorrt"], REAL.api, built_with), ADA, ())
    cache = default_cache()
    cache.store(engine_key(model, full, profile, "fp32"), b"an engine", 1.0)
    # One that is not for the lean runtime is never tried.
    cache.store(engine_key(model, full, Profile(TILE, LARGEST_BATCH), "fp16"), b"another", 1.0)
    lean = TensorRT(LEAN, Api(gpu), runtime)
    monkeypatch.setattr(tensorrt_session, "open_runtime", lambda name: lean)
    load = choose_engine("tensorrt").load
    if found:
        assert load(model, TILE, "auto").precision == "fp32"
        assert gpu.loaded == [b"an engine"]
    else:
        with pytest.raises(EngineError, match="cellrt build --lean"):
            load(model, TILE, "auto")


def test_several_gpus_share_the_tiles(gpu, stack, monkeypatch):
    one, _ = segment(stack)
    monkeypatch.setattr(tensorrt_session, "devices_alike", lambda: [0, 0])
    session = choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "auto")
    assert isinstance(session, SpreadSession)
    two, _ = segment(stack)
    assert two.record["engine"]["device"] == "2 x NVIDIA RTX 4000 Ada"
    np.testing.assert_array_equal(one.labels, two.labels)
