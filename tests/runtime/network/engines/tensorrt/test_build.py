"""Building engines with the real TensorRT-RTX, ahead of time; no GPU is needed for that."""

from __future__ import annotations

import os
import signal
import sys
import types
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from cellrt.errors import EngineError, ResourceError, UsageError
from cellrt.runtime.machine.driver import Gpu
from cellrt.runtime.model.file import bundled_models, open_model
from cellrt.runtime.network.engines.tensorrt import build, provide
from cellrt.runtime.network.engines.tensorrt.build import Profile, build_engine
from cellrt.runtime.network.engines.tensorrt.cache import EngineCache
from cellrt.runtime.network.engines.tensorrt.library import (
    FLAVOURS,
    LEAN,
    TensorRT,
    open_library,
    open_runtime,
)
from cellrt.runtime.network.engines.tensorrt.provide import (
    choose_builder,
    engine_key,
    obtain_engine,
)

PROFILE = Profile((16, 24, 32), 2)
ORIN = Gpu("NVIDIA Orin", "64 GiB", "540.4", "8.7")


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    return open_library("tensorrt-rtx")


def small_graph(operation="Relu"):
    """Input (n, 1, z, y, x) -> one operation -> output."""
    shape = ["n", 1, "z", "y", "x"]
    graph = helper.make_graph(
        [helper.make_node(operation, ["image"], ["fields"], name="the_node")],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("fields", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


def test_every_target_of_the_library_is_among_those_that_are_tried(library):
    assert set(library.targets) == set(TARGETS)


@pytest.mark.parametrize("name", bundled_models())
@pytest.mark.parametrize("targets", [*((name,) for name in TARGETS), TARGETS, ()])
def test_bundled_models_build_ahead_of_time_in_fp16(library, name, targets):
    model = open_model(name).variant("fp16")
    phases = []
    engine = build_engine(
        library,
        model.content,
        Profile(model.card.tile, 4, workspace_bytes=1 << 30),
        targets=targets,
        advance=lambda phase, share: phases.append((phase, share)),
    )
    # The weights are inside, and more than them.
    families = len(targets) or 1
    assert 0.9 * len(model.content) < len(engine) < 3 * families * len(model.content)
    assert len({phase for phase, _ in phases}) > 3
    assert all(0 <= share <= 1 for _, share in phases)


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_build_ahead_of_time_in_fp32_with_tf32_and_without(library, name):
    graph = open_model(name).content
    for tf32 in (True, False):
        assert build_engine(library, graph, Profile((32, 64, 64), 2), targets=("sm86",), tf32=tf32)


def test_a_node_that_cannot_be_read_is_named(library):
    with pytest.raises(EngineError, match=r"'the_node' \(Frobnicate\)") as raised:
        build_engine(library, small_graph("Frobnicate"), PROFILE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("graph", [b"not a graph", small_graph()[:40]])
def test_what_is_no_graph_is_refused(library, graph):
    with pytest.raises(EngineError, match="cannot read this graph"):
        build_engine(library, graph, PROFILE)


def test_a_tile_that_the_network_cannot_take_is_refused_with_the_librarys_reason(library):
    model = open_model("nuclei")
    with pytest.raises(EngineError, match="cannot build an engine for 1 tile of 15x24x32"):
        build_engine(library, model.content, Profile((15, 24, 32), 1))


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("[a.cpp::make::132] Error Code 2: OutOfMemory (Requested size)", ResourceError, "--tile"),
        ("cat: tensor volume exceeds 2147483647 In f at /_src/a.cpp:3", ResourceError, "--batch"),
        ("no implementation for node a due to insufficient workspace", ResourceError, "--tile"),
        ("no such kernel " + 100 * "In operator() at /_src/b.cpp:9 ", EngineError, "another"),
        ("no such kernel " * 100, EngineError, "another"),
        ("", EngineError, "it does not say why"),
    ],
)
def test_what_the_library_says_is_cut_to_a_line_with_advice_that_fits(
    library, monkeypatch, said, kind, advice
):
    class Builder:
        def __init__(self, logger):
            self.real, self.logger = library.api.Builder(logger), logger

        def build_serialized_network(self, network, config):
            self.logger.errors = [said] if said else []

        def __getattr__(self, name):
            return getattr(self.real, name)

    class Api:
        def __getattr__(self, name):
            return Builder if name == "Builder" else getattr(library.api, name)

    with pytest.raises(kind) as raised:
        build_engine(TensorRT(FLAVOURS["tensorrt-rtx"], Api(), "1.7"), small_graph(), PROFILE)
    line = raised.value.message
    assert advice in line
    assert "_src" not in line
    assert ".cpp" not in line
    assert len(line) < 320


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_build_and_the_handler_is_put_back(library, number):
    def handler(number, frame):
        raise KeyboardInterrupt

    def interrupt(phase, share):
        os.kill(os.getpid(), number)

    before = signal.signal(number, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_engine(library, small_graph(), PROFILE, advance=interrupt)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", ["sm90", "ampere", "8.9", ""])
def test_an_unknown_target_is_refused_with_those_there_are(library, name):
    with pytest.raises(UsageError, match="sm89"):
        choose_builder("tensorrt-rtx", [name])


def test_the_order_of_targets_does_not_matter(library):
    first, second = (
        choose_builder(None, t) for t in (["SM120", "sm89"], ["sm89", "sm120", "sm89"])
    )
    assert first == second
    assert first.targets == ("sm89", "sm120")


def card(name, capability):
    return Gpu(name, "80 GiB", "580.95", capability)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        *((known, True) for known in ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1", "")),
        *((other, False) for other in ("6.1", "7.0", "8.7", "9.0", "10.0", "11.0")),
    ],
)
def test_tensorrt_rtx_takes_the_gpus_that_it_has_kernels_for(library, capability, runs):
    gpu = card("NVIDIA card", capability)
    if runs:
        library.refuse_gpu(gpu)
        return
    with pytest.raises(EngineError, match=r"it knows compute capability 7.5, .*12.0") as raised:
        library.refuse_gpu(gpu)
    assert capability in str(raised.value)


@pytest.mark.parametrize(
    ("version", "capability", "runs"),
    [
        ("10.3.0", "7.0", True),
        ("10.7.0", "7.0", False),
        ("11.4.0.106", "6.1", False),
        ("10.3.0", "6.1", False),
        ("10.3.0", "8.7", True),
        ("11.4.0.106", "9.0", True),
        ("11.4.0.106", "7.5", True),
    ],
)
def test_tensorrt_takes_volta_until_10_5_and_newer_gpus_always(version, capability, runs):
    tensorrt = TensorRT(FLAVOURS["tensorrt"], None, version)
    if runs:
        tensorrt.refuse_gpu(card("NVIDIA card", capability))
        return
    with pytest.raises(EngineError, match="and newer, and this one has"):
        tensorrt.refuse_gpu(card("NVIDIA card", capability))


@pytest.mark.parametrize("targets", [("sm75",), ("sm75", "sm89")])
def test_turing_is_refused_what_it_has_no_kernels_for_and_told_what_it_has(
    library, tmp_path, targets
):
    builder, cache = choose_builder("tensorrt-rtx", targets), EngineCache(tmp_path)
    with pytest.raises(EngineError, match="precision fp16"):
        obtain_engine(open_model("nuclei"), builder, cache)
    int8 = replace(open_model("nuclei"), card=replace(open_model("nuclei").card, precision="int8"))
    with pytest.raises(EngineError, match="none in int8"):
        obtain_engine(int8, builder, cache)
    assert not list(tmp_path.iterdir())


def test_an_engine_is_built_once_and_again_for_another_target(library, tmp_path):
    model, cache, notes = open_model("nuclei"), EngineCache(tmp_path), []
    sm89 = choose_builder("tensorrt-rtx", ["sm89"])
    engine, key = obtain_engine(model, sm89, cache, note=notes.append)
    assert obtain_engine(model, sm89, cache, note=notes.append) == (engine, key)
    obtain_engine(model, choose_builder("tensorrt-rtx", ["sm86"]), cache, note=notes.append)
    assert len(cache.entries()) == 2
    assert len(notes) == 2
    assert "it is for sm89 (GPUs of compute capability 8.9), not for sm86 (" in notes[1]
    obtain_engine(model, sm89, cache, Profile(model.card.tile, 4, 1 << 30), note=notes.append)
    assert "1073741824 bytes of workspace" in notes[2]


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
@pytest.mark.parametrize("saved", [None, b"", b"damaged"])
def test_timings_of_kernels_are_kept_between_builds(library, tmp_path, saved):
    # TensorRT-RTX has the calls, and in place of TensorRT shows that they fit together.
    tensorrt = TensorRT(FLAVOURS["tensorrt"], library.api, "11.4")
    file = tmp_path / "some.timings"
    if saved is not None:
        file.write_bytes(saved)
    for _ in range(2):
        assert build_engine(tensorrt, small_graph(), PROFILE, timings=file)
    assert len(file.read_bytes()) > 20
    other = tmp_path / "other.timings"
    build_engine(library, small_graph(), PROFILE, timings=other)
    assert not other.exists()


class Refusing:
    """A builder's configuration that takes no former timings, in one way or another."""

    def __init__(self, way):
        self.way, self.taken = way, []

    def create_timing_cache(self, saved):
        if saved and self.way == "raises":
            raise RuntimeError("deserialisation failed")
        return None if saved and self.way == "none" else saved

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache is None or self.way == "takes none":
            raise TypeError("incompatible function arguments")
        if cache:
            return False
        self.taken.append(cache)
        return True

    def get_timing_cache(self):
        raise RuntimeError("there is none")


@pytest.mark.parametrize("way", ["raises", "none", "returns"])
def test_timings_that_are_rejected_are_left_out_with_one_line(tmp_path, way):
    file, config, notes = tmp_path / "some.timings", Refusing(way), []
    file.write_bytes(b"of another GPU")
    build._take_timings(config, file, notes.append)
    assert config.taken == [b""]
    (note,) = notes
    assert "left out" in note
    assert "\n" not in note


def test_a_builder_that_takes_no_timings_at_all_builds_without(tmp_path):
    file, notes = tmp_path / "some.timings", []
    file.write_bytes(b"of another GPU")
    build._take_timings(Refusing("takes none"), file, notes.append)
    assert len(notes) == 1


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
def test_timings_that_cannot_be_read_or_kept_do_not_end_a_build(library, tmp_path):
    tensorrt, notes = TensorRT(FLAVOURS["tensorrt"], library.api, "11.4"), []
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "some.timings"
    assert build_engine(tensorrt, small_graph(), PROFILE, timings=file, note=notes.append)
    assert "cannot be kept" in notes[-1]
    notes.clear()
    build._keep_timings(Refusing("raises"), tmp_path / "some.timings", notes.append)
    assert "there is none" in notes[0]


def test_an_engine_for_the_lean_runtime_is_built_as_such(library):
    flags = []

    class Config:
        def __init__(self, real):
            object.__setattr__(self, "real", real)

        def __getattr__(self, name):
            return flags.append if name == "set_flag" else getattr(self.real, name)

        def __setattr__(self, name, value):
            setattr(self.real, name, value)

    class Builder:
        def __init__(self, logger):
            self.real = library.api.Builder(logger)

        def create_builder_config(self):
            return Config(self.real.create_builder_config())

        def build_serialized_network(self, network, config):
            return self.real.build_serialized_network(network, config.real)

        def __getattr__(self, name):
            return getattr(self.real, name)

    class Api:
        def __getattr__(self, name):
            return Builder if name == "Builder" else getattr(library.api, name)

    tensorrt = TensorRT(FLAVOURS["tensorrt"], Api(), "11.4")
    build_engine(tensorrt, small_graph(), Profile((16, 24, 32), 2, lean=True))
    chosen = library.api.BuilderFlag
    assert flags == [chosen.VERSION_COMPATIBLE, chosen.EXCLUDE_LEAN_RUNTIME]
    assert "lean" in str(Profile((16, 24, 32), 2, lean=True))


def test_tensorrt_rtx_has_no_lean_runtime(library, tmp_path):
    builder, lean = choose_builder("tensorrt-rtx"), Profile((16, 24, 32), 2, lean=True)
    with pytest.raises(UsageError, match="engine tensorrt"):
        obtain_engine(open_model("nuclei"), builder, EngineCache(tmp_path), lean)


def test_the_lean_runtime_stands_in_for_tensorrt_only_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)
    with pytest.raises(EngineError, match="tensorrt is not installed"):
        open_runtime("tensorrt")
    module = types.ModuleType("tensorrt_lean")
    module.__version__ = "11.4.0.106"
    monkeypatch.setitem(sys.modules, "tensorrt_lean", module)
    assert open_runtime("tensorrt").flavour is LEAN
    with pytest.raises(EngineError, match="tensorrt is not installed"):
        open_library("tensorrt")


def fake_tensorrt(monkeypatch, version):
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "11.4.0"])
def test_tensorrt_on_a_gpu_is_taken_first(monkeypatch, version):
    fake_tensorrt(monkeypatch, version)
    monkeypatch.setattr(provide, "nvidia_gpus", lambda: ((ORIN,), ""))
    builder = choose_builder()
    assert builder.library.version == version
    key = engine_key(open_model("nuclei"), builder, PROFILE, "fp16")
    assert (key.gpu, key.compute_capability, key.driver) == ("NVIDIA Orin", "8.7", "540.4")
    assert key.library == f"tensorrt {version}"


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0"])
def test_a_version_that_is_not_known_to_work_is_refused(monkeypatch, version):
    fake_tensorrt(monkeypatch, version)
    with pytest.raises(EngineError, match=rf"tensorrt {version} is installed, and 10.3 to 11"):
        open_library("tensorrt")


def test_tensorrt_builds_for_the_device_that_segment_opens(monkeypatch, stub_driver):
    fake_tensorrt(monkeypatch, "10.3.0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")  # which is put back afterwards
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    stub_driver.says(CUDA=12060, DRIVER="540.4", GPUS="Orin/8.7/16/62000;RTX/8.9/40/20000")
    builder = choose_builder("tensorrt")
    # Before CUDA starts, so that its first device is the first of the list, and not the fastest.
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    key = engine_key(open_model("nuclei"), builder, PROFILE, "fp16")
    assert (key.gpu, key.multiprocessors) == ("Orin", "16")


@pytest.mark.parametrize("capability", ["6.1", "5.3"])
def test_tensorrt_builds_for_no_gpu_that_it_has_no_kernels_for(monkeypatch, capability):
    fake_tensorrt(monkeypatch, "10.13.3")
    monkeypatch.setattr(provide, "nvidia_gpus", lambda: ((card("old", capability),), ""))
    with pytest.raises(EngineError, match="does not run on old"):
        choose_builder("tensorrt")


def test_tensorrt_without_a_gpu_says_why_and_what_else_to_do(monkeypatch):
    fake_tensorrt(monkeypatch, "10.13.3")
    monkeypatch.setattr(provide, "nvidia_gpus", lambda: ((), "no driver"))
    with pytest.raises(EngineError, match=r"no driver; or use engine tensorrt-rtx"):
        choose_builder("tensorrt")


def test_a_missing_shared_library_is_one_line(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "tensorrt":
                raise OSError("libnvinfer.so.10: cannot open shared object file\nmore")
            return None

    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(EngineError, match=r"libnvinfer\.so\.10") as raised:
        open_library("tensorrt")
    assert "\n" not in str(raised.value)


def test_a_target_is_refused_where_only_the_gpu_here_is_built_for(monkeypatch):
    fake_tensorrt(monkeypatch, "10.13.3")
    with pytest.raises(UsageError, match="tensorrt-rtx"):
        choose_builder("tensorrt", ["sm89"])


def test_nothing_installed_names_both_libraries(monkeypatch):
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=r"tensorrt: .*tensorrt-rtx: .*pip install"):
        choose_builder()


def test_graphs_of_tests_are_valid():
    onnx.checker.check_model(onnx.load_from_string(small_graph()))
