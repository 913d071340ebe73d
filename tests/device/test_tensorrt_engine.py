"""TensorRT as an engine: the real TensorRT-RTX builds, and below its runtime a thin fake computes.

The fake gets the addresses and shapes that the real runtime would get, and runs the same graph in
ONNX Runtime on the memory there.
"""

from __future__ import annotations

import ctypes
import json
import types
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from numba import config

import cellrt
from cellrt.cli.main import _run
from cellrt.errors import CellrtWarning, EngineError
from cellrt.runtime.machine.driver import Gpu
from cellrt.runtime.machine.gpu import Device, DeviceMemoryError, open_device
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines import choice as engine_choice
from cellrt.runtime.network.engines.gpu_session import LARGEST_BATCH, SpreadSession
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.engines.speed import one_run
from cellrt.runtime.network.engines.tensorrt import bundle as tensorrt_bundle
from cellrt.runtime.network.engines.tensorrt import engine as tensorrt_engine
from cellrt.runtime.network.engines.tensorrt import provide
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
        self.profiler = None

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
        if self.profiler is not None:
            self.profiler.report_layer_time("conv", 1.5)
            self.profiler.report_layer_time("softmax", 0.25)
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


def other(capability):
    return Gpu("NVIDIA other", "24 GiB", "580.95", capability)


def with_gpu(monkeypatch, here):
    for module in (tensorrt_engine, tensorrt_bundle, provide, engine_choice):
        monkeypatch.setattr(module, "nvidia_gpus", lambda: ((here,), ""))


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    behaviour = Behaviour()
    library = TensorRT(REAL.flavour, Api(behaviour), REAL.version)

    def open_fake(name):
        if name != "tensorrt-rtx":
            raise EngineError("tensorrt is not installed")
        return library

    monkeypatch.setattr(tensorrt_engine, "open_runtime", open_fake)
    monkeypatch.setattr(provide, "open_library", open_fake)
    monkeypatch.setattr(tensorrt_bundle, "open_runtime", open_fake)
    with_gpu(monkeypatch, ADA)
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
        progress=notes,
        **{"engine": "tensorrt-rtx", "tile": TILE} | options,
    )
    return result, notes.lines


def test_segmenting_builds_verifies_and_runs_an_engine_once(gpu, stack):
    first, notes = segment(stack)
    expected, _ = segment(stack, engine="onnxruntime")
    np.testing.assert_array_equal(first.labels, expected.labels)
    assert first.labels.max() > 2
    assert any("building an engine of nuclei in fp16: there is none yet" in n for n in notes)
    assert any("comparing the new engine" in note for note in notes)
    engine = first.record["engine"]
    assert (engine["name"], engine["device"]) == ("tensorrt-rtx", "NVIDIA RTX 4000 Ada")
    # What was computed, with which file, is what the record says.
    half = open_model("nuclei").variant("fp16")
    assert engine["precision"] == "fp16"
    assert (first.record["model"]["file"], first.record["model"]["sha256"]) == (
        "nuclei.fp16.onnx",
        half.sha256,
    )
    assert expected.record["model"]["file"] == "nuclei.onnx"
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


def test_layers_are_those_that_tensorrt_tells_of_per_run(gpu):
    image = np.zeros((2, 1, *TILE), np.float32)
    layers = choose_engine("tensorrt-rtx").layers(open_model("nuclei"), image, "auto", 3)
    assert [(layer.name, layer.milliseconds) for layer in layers] == [
        ("conv", 1.5),
        ("softmax", 0.25),
    ]
    assert gpu.runs[-3:] == [2, 2, 2]


def test_a_tile_is_timed_without_its_copies_as_many_at_once_as_the_engine_takes(gpu):
    session = choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "auto")
    run, batch = one_run(session, TILE, 99)
    assert batch == session.largest_batch == 4
    run()
    assert gpu.runs[-1] == 4


def test_a_precision_that_was_not_made_is_refused_with_the_command(gpu):
    with pytest.raises(EngineError, match="cellrt export nuclei --precision int8 -o"):
        choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "int8")


def test_a_user_learns_before_the_image_is_read_that_a_precision_cannot_be_had(gpu):
    with pytest.raises(EngineError, match="cellrt export nuclei --precision int8 -o"):
        cellrt.Segmenter("nuclei", engine="tensorrt-rtx", precision="int8")


def test_every_precision_is_an_engine_of_its_own_and_fp32_is_not_tf32(gpu, monkeypatch):
    asked = []

    def build(library, graph, profile, *, tf32, **rest):
        asked.append(tf32)
        return f"engine {len(asked)}".encode()

    monkeypatch.setattr(provide, "build_engine", build)
    model, load = open_model("nuclei"), choose_engine("tensorrt-rtx").load
    for precision in ("auto", "fp16"):
        assert load(model, TILE, precision).precision == "fp16"
    assert load(model, TILE, "fp32").precision == "fp32"
    assert load(model, TILE, "tf32").precision == "tf32"
    assert asked == [True, False, True]
    assert sorted(entry.key.precision for entry in default_cache().entries()) == [
        *("fp16", "fp32", "tf32")
    ]


def test_an_own_model_without_an_fp16_file_runs_in_tf32_and_the_command_is_said(gpu, tmp_path):
    mine, notes = tmp_path / "mine.onnx", []
    mine.write_bytes(open_model("nuclei").path.read_bytes())
    session = choose_engine("tensorrt-rtx").load(open_model(mine), TILE, "auto", notes.append)
    assert session.precision == "tf32"
    assert f"no fp16 file of mine.onnx for GPUs; run `cellrt export {mine} --precision fp16`" in (
        notes
    )


@pytest.mark.parametrize(("targets", "found"), [(("sm89", "sm120"), True), (("sm86",), False)])
def test_an_engine_built_ahead_of_time_is_found_by_the_gpus_it_is_for(gpu, targets, found):
    model, notes = open_model("nuclei"), []
    builder = choose_builder("tensorrt-rtx", targets)
    data, _ = obtain_engine(model.variant("fp16"), builder, default_cache(), Profile(TILE, 4))
    choose_engine("tensorrt-rtx").load(model, TILE, "auto", notes.append)
    assert (gpu.loaded == [data]) is found
    assert any("building" in note for note in notes) is not found


@pytest.mark.parametrize("capability", ["9.0", "8.7", "6.1"])
def test_a_gpu_without_kernels_is_passed_over_with_the_reason(gpu, monkeypatch, capability):
    with_gpu(monkeypatch, other(capability))
    choice = choose_engine(None, open_model("nuclei"))
    assert choice.name != "tensorrt-rtx"
    assert capability in dict(choice.skipped)["tensorrt-rtx"]
    with pytest.raises(EngineError, match=f"this one has {capability}"):
        choose_engine("tensorrt-rtx")
    assert gpu.loaded == []


def test_turing_runs_the_fp16_file_and_is_passed_over_without_one_with_the_command(
    gpu, monkeypatch, tmp_path
):
    with_gpu(monkeypatch, other("7.5"))
    model, mine = open_model("nuclei"), tmp_path / "mine.onnx"
    mine.write_bytes(model.path.read_bytes())
    choice = choose_engine(None, open_model(mine), tile=TILE)
    assert choice.name != "tensorrt-rtx"
    assert any("--precision fp16" in text for text in choice.warnings)
    assert not default_cache().folder.exists()  # nothing was tried
    choice = choose_engine(None, model, tile=TILE)
    assert choice.name == "tensorrt-rtx"
    assert choice.load(model, TILE, "auto").precision == "fp16"
    assert [entry.key.compute_capability for entry in default_cache().entries()] == ["sm75"]
    for precision, why in (("fp32", "only in fp16"), ("tf32", "no TF32")):
        with pytest.raises(EngineError, match=why):
            choice.load(model, TILE, precision)


def test_an_engine_that_computes_nonsense_is_replaced_where_nobody_asked_for_it(gpu, stack):
    gpu.factor = 0.7
    with pytest.warns(CellrtWarning, match="engine tensorrt-rtx failed"):
        first, _ = segment(stack, engine=None)
    assert first.record["engine"]["name"] != "tensorrt-rtx"
    runs = len(gpu.runs)
    with pytest.warns(CellrtWarning, match="engine tensorrt-rtx is not taken: it failed on"):
        segment(stack, engine=None)
    assert len(gpu.runs) == runs


def build(*words):
    """Run ``cellrt build``, which must work."""
    assert _run(["build", "nuclei", "--engine", "tensorrt-rtx", *words], debug=False) == 0


def tile_words(tile):
    return ["--tile", *map(str, tile)]


@pytest.mark.parametrize("words", [("--batch", "2"), ("--workspace", "0.5"), ("--batch", "8")])
def test_an_engine_built_for_another_batch_or_workspace_is_the_one_that_runs(gpu, stack, words):
    build(*tile_words(TILE))
    build(*tile_words(TILE), *words)
    (wanted,) = [
        e
        for e in default_cache().entries()
        if e.key.profile.largest_batch != 4 or e.key.profile.workspace_bytes
    ]
    _, notes = segment(stack)
    assert not any("building" in note for note in notes)
    assert set(gpu.loaded) == {wanted.path.read_bytes()}
    build(*tile_words(TILE))  # asked for again: it is the one that is wanted now
    gpu.loaded.clear()
    segment(stack)
    assert set(gpu.loaded) != {wanted.path.read_bytes()}


def test_the_tile_of_the_engine_that_was_built_is_the_one_that_runs(gpu, stack):
    build(*tile_words(TILE))
    result, notes = segment(stack, tile=None)
    assert result.record["tiles"]["shape_zyx"] == list(TILE)
    assert not any("building" in note for note in notes)
    # One that a run built on its way decides nothing for the next.
    model, builder = open_model("nuclei"), choose_builder("tensorrt-rtx")
    obtain_engine(model, builder, default_cache(), Profile((16, 16, 16), 4))
    assert choose_engine("tensorrt-rtx").fixed_tile(model) == TILE
    build()
    assert choose_engine("tensorrt-rtx").fixed_tile(model) == model.card.tile


def test_orins_with_other_numbers_of_multiprocessors_have_engines_of_their_own(gpu):
    model, profile, keys = open_model("nuclei"), Profile(TILE, LARGEST_BATCH), []
    for number in (8, 16):
        orin = Gpu("Orin", "64 GiB", "540.4", "8.7", multiprocessors=number)
        builder = Builder(TensorRT(FLAVOURS["tensorrt"], REAL.api, "10.3.0"), orin, ())
        keys.append(engine_key(model, builder, profile, "tf32"))
        default_cache().store(keys[-1], str(number).encode(), 1.0)
    assert keys[0].stem != keys[1].stem
    found = tensorrt_engine._entries(model, builder, TILE, "auto", default_cache(), builder.gpu)
    assert [entry.key for entry in found] == [keys[1]]
    assert default_cache().timings(keys[0]) != default_cache().timings(keys[1])


class KernelSettings:
    """A runtime's configuration with a cache of compiled kernels, which grows when it is used."""

    compiled = 0

    def set_execution_context_allocation_strategy(self, strategy):
        pass

    def create_runtime_cache(self):
        self.content = b""
        return self

    def set_runtime_cache(self, cache):
        if not cache.content:
            KernelSettings.compiled += 1
            self.content = b"kernels"

    def deserialize(self, data):
        self.content = data
        return True

    def serialize(self):
        return self.content


def test_the_second_process_does_not_compile_again(gpu, stack, monkeypatch):
    real = Behaviour.engine

    def engine(self, data):
        made = real(self, data)
        made.create_runtime_config = KernelSettings
        return made

    monkeypatch.setattr(Behaviour, "engine", engine)
    monkeypatch.setattr(KernelSettings, "compiled", 0)
    segment(stack)
    assert KernelSettings.compiled == 1
    segment(stack)
    assert KernelSettings.compiled == 1
    (file,) = default_cache().folder.glob("*.kernels")
    file.write_bytes(file.read_bytes()[:-1] + b"?")  # never read, as it is machine code
    segment(stack)
    assert KernelSettings.compiled == 2
    newer = Gpu(ADA.name, ADA.memory, "590.1", ADA.compute_capability)
    with_gpu(monkeypatch, newer)
    segment(stack)
    assert KernelSettings.compiled == 3


def test_another_gpu_or_driver_is_compared_with_the_cpu_on_its_own(gpu, stack, monkeypatch):
    def compared():
        return any("comparing the new engine" in note for note in segment(stack)[1])

    assert [compared(), compared()] == [True, False]
    with_gpu(monkeypatch, Gpu(ADA.name, ADA.memory, "590.1", ADA.compute_capability))
    assert [compared(), compared()] == [True, False]


def test_tiles_that_are_computed_in_each_others_place_are_found(gpu, monkeypatch):
    real = Context.execute_async_v3

    def swapped(self, stream):
        done = real(self, stream)
        if self.shape[0] > 1:
            name = next(name for name in self.addresses if name != "image")
            fields = memory_at(self.addresses[name], (self.shape[0], 4, *TILE))
            fields[:] = fields[::-1].copy()
        return done

    monkeypatch.setattr(Context, "execute_async_v3", swapped)
    with pytest.raises(EngineError, match="computes something else than the CPU"):
        choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "auto")


@pytest.fixture
def bundle(gpu, tmp_path):
    path = tmp_path / "engine.bundle"
    build(*tile_words(TILE), "--target", "sm89", "-o", str(path))
    default_cache().clear()
    return path


def segment_file(stack, tmp_path, *words):
    """Run ``cellrt segment`` with an engine file; return its code and its record."""
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    out = ["-o", str(tmp_path / "out.labels.tif"), "--overwrite", "--diameter", "16"]
    code = _run(["segment", str(tmp_path / "stack.tif"), *out, *words], debug=False)
    record = tmp_path / "out.run.json"
    return code, json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}


def test_a_bundle_runs_without_a_builder_and_says_where_it_came_from(
    gpu, bundle, stack, tmp_path, monkeypatch
):
    expected, _ = segment(stack)
    default_cache().clear()
    gpu.loaded.clear()
    monkeypatch.setattr(provide, "build_engine", lambda *_, **__: pytest.fail("it builds"))
    code, record = segment_file(stack, tmp_path, "--engine-file", str(bundle))
    assert code == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.labels.tif"), expected.labels)
    assert "engine.bundle, sha256" in record["engine"]["reason"]
    assert record["model"]["sha256"] == open_model("nuclei").variant("fp16").sha256
    assert record["tiles"]["shape_zyx"] == list(TILE)
    with zipfile.ZipFile(bundle) as archive:
        assert set(gpu.loaded) == {archive.read("engine")}


@pytest.mark.parametrize(
    ("gpu_here", "words", "reason"),
    [
        (other("8.6"), (), "compute capability 8.9), and NVIDIA other has compute capability 8.6"),
        (ADA, ("--precision", "tf32"), "leave --precision out"),
        (ADA, ("--tile", "32", "32", "32"), "leave --tile out"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_with_the_reason(
    gpu, bundle, stack, tmp_path, monkeypatch, capfd, gpu_here, words, reason
):
    with_gpu(monkeypatch, gpu_here)
    gpu.loaded.clear()
    code, record = segment_file(stack, tmp_path, "--engine-file", str(bundle), *words)
    assert (code, record, gpu.loaded) == (4, {}, [])
    assert reason in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"library": "tensorrt 10.7.0"}, "built with tensorrt 10.7.0 and tensorrt 10.3.0 is here"),
        ({"system": "Linux aarch64x"}, "it is for Linux aarch64x"),
        (
            {"multiprocessors": "8"},
            "and 8 multiprocessors, and this machine has Orin with compute capability 8.7",
        ),
        (
            {"gpu": "Thor", "compute_capability": "11.0"},
            "it was built for Thor with compute capability 11.0",
        ),
        ({"driver": "999"}, ""),
        ({"cellrt": "999"}, ""),
    ],
)
def test_an_engine_of_tensorrt_fits_its_version_system_and_board(gpu, change, reason):
    orin = Gpu("Orin", "64 GiB", "540.4", "8.7", multiprocessors=16)
    library = TensorRT(FLAVOURS["tensorrt"], REAL.api, "10.3.0")
    key = engine_key(open_model("nuclei"), Builder(library, orin, ()), Profile(TILE), "fp32")
    found = "; ".join(tensorrt_bundle._misfits(replace(key, **change), library, orin))
    assert (reason in found) if reason else not found


@pytest.mark.parametrize("capability", ["8.0", "12.0", "7.5"])
def test_an_rtx_engine_without_a_target_fits_every_system_and_newer_cards(gpu, capability):
    builder = choose_builder("tensorrt-rtx")
    key = engine_key(open_model("nuclei"), builder, Profile(TILE), "fp32")
    assert (key.system, key.driver) == ("any", "any")
    found = list(tensorrt_bundle._misfits(key, builder.library, other(capability)))
    assert bool(found) == (capability == "7.5")


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
    half = model.variant("fp16")
    cache.store(engine_key(half, full, profile, "fp16"), b"an engine", 1.0)
    # One that is not for the lean runtime is never tried.
    cache.store(engine_key(half, full, Profile(TILE, LARGEST_BATCH), "fp16"), b"another", 1.0)
    lean = TensorRT(LEAN, Api(gpu), runtime)
    monkeypatch.setattr(tensorrt_engine, "open_runtime", lambda name: lean)
    load = choose_engine("tensorrt").load
    if found:
        assert load(model, TILE, "auto").precision == "fp16"
        assert gpu.loaded == [b"an engine"]
    else:
        with pytest.raises(EngineError, match="cellrt build --lean"):
            load(model, TILE, "auto")


def test_several_gpus_share_the_tiles(gpu, stack, monkeypatch):
    one, _ = segment(stack)
    monkeypatch.setattr(tensorrt_engine, "devices_alike", lambda: [0, 0])
    session = choose_engine("tensorrt-rtx").load(open_model("nuclei"), TILE, "auto")
    assert isinstance(session, SpreadSession)
    two, _ = segment(stack)
    assert two.record["engine"]["device"] == "2 x NVIDIA RTX 4000 Ada"
    np.testing.assert_array_equal(one.labels, two.labels)
