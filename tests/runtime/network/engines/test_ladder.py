"""Engines: they agree with each other, and the ladder says what it did."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from cellrt.errors import EngineError, UsageError
from cellrt.runtime.machine import driver
from cellrt.runtime.machine.driver import Driver, nvidia_gpus
from cellrt.runtime.model.file import bundled_models, open_model
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines import ladder as engine_module
from cellrt.runtime.network.engines import openvino as openvino_engine
from cellrt.runtime.network.engines.base import PRECISIONS, EngineSpec
from cellrt.runtime.network.engines.choice import engine_of
from cellrt.runtime.network.engines.ladder import choose_engine, ladder, register_engine

TILE = (16, 32, 32)


def test_openvino_is_the_best_for_cpus_and_explains_itself(monkeypatch):
    nothing = Driver(problem="no NVIDIA driver found")
    monkeypatch.setattr(driver, "nvidia_driver", lambda: nothing)
    choice = choose_engine()
    assert choice.name == "openvino"
    assert "OpenVINO" in choice.reason
    assert "best that loads" in choice.reason
    assert "no NVIDIA driver found" in dict(choice.skipped)["onnxruntime-cuda"]


@pytest.mark.parametrize("name", bundled_models())
def test_engines_agree(name):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    model = open_model(name)
    image = golden_input(TILE)
    engines = ("openvino", "onnxruntime")
    results = [choose_engine(e).load(model, TILE, "fp32").infer(image) for e in engines]
    fields = (n // model.card.output_stride for n in TILE)
    assert results[0].shape == (1, len(model.card.outputs[0].channels), *fields)
    np.testing.assert_allclose(results[0], results[1], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", bundled_models())
def test_the_golden_output_is_reproduced(name):
    model = open_model(name)
    golden = model.card.golden
    assert golden is not None
    session = choose_engine("openvino").load(model, golden.shape, "fp32")
    output = session.infer(golden_input(golden.shape))
    np.testing.assert_allclose(
        output.mean(axis=(0, 2, 3, 4)), golden.output_mean, atol=golden.tolerance
    )


def test_an_engine_that_does_not_load_is_skipped_with_a_reason(monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    monkeypatch.setitem(sys.modules, "openvino", None)
    choice = choose_engine()
    assert choice.name == "onnxruntime"
    assert "pip install openvino" in dict(choice.skipped)["openvino"]


def test_an_engine_asked_for_is_never_replaced(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="pip install openvino"):
        choose_engine("openvino")


def test_no_engine_at_all_is_an_error_with_every_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"openvino: .*onnxruntime: "):
        choose_engine()


def test_openvinos_converter_and_telemetry_stay_out_and_can_be_had_later():
    program = """
import sys
from cellrt.runtime.network.engines.ladder import choose_engine
choose_engine("openvino")
assert not any("telemetry" in name or name.startswith("openvino.tools") for name in sys.modules)
from openvino.tools.ovc import convert_model
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_an_unknown_engine_lists_the_known_ones():
    with pytest.raises(UsageError, match="openvino-gpu, openvino, onnxruntime"):
        choose_engine("abacus")


def test_bf16_is_refused_where_it_cannot_be_had():
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    with pytest.raises(EngineError, match="fp32 on the CPU"):
        choose_engine("onnxruntime").load(open_model("nuclei"), TILE, "bf16")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "OpenVINO"])
def test_a_precision_is_refused_when_the_engine_is_chosen_not_when_it_loads(monkeypatch, engine):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    with pytest.raises(EngineError, match="fp32"):
        choose_engine(engine, open_model("nuclei"), precision="bf16")


def test_an_engine_asked_for_in_vain_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"):
        with pytest.raises(EngineError, match="hides all GPUs; take that variable") as raised:
            choose_engine(name)
        assert raised.value.message.startswith(f"--engine {name} cannot be had here: ")
        assert raised.value.message.endswith("leave --engine out to use the CPU")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(driver, "_LIBRARY", "libno-such-driver.so")
    monkeypatch.setattr(driver, "_version", lambda: "")
    monkeypatch.setattr(driver, "_on_the_bus", lambda: False)
    with pytest.raises(EngineError, match=r"no NVIDIA driver found; .* driver 580 or newer"):
        choose_engine("tensorrt")


@pytest.mark.parametrize("spec", ladder(), ids=lambda spec: spec.name)
def test_every_engine_is_where_its_declaration_says(spec):
    if spec.module.partition(":")[0].endswith("onnxruntime_cuda"):
        pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    engine = engine_of(spec)
    assert callable(engine.available)
    assert callable(engine.load)
    assert spec.own_precisions | spec.file_precisions <= set(PRECISIONS) - {"auto", "fp32"}
    assert not spec.own_precisions & spec.file_precisions
    # What computes in fp16 only what is fp16 is what takes the files that ship for it.
    assert ("fp16" in spec.file_precisions) == (spec.needs == "nvidia")


class Nothing:
    """An engine that loads and remembers in which precision."""

    def available(self, *, asked):
        return "nothing"

    def load(self, model, tile, *, precision, note):
        return precision


def test_an_engine_from_outside_stands_where_it_was_put(monkeypatch):
    monkeypatch.setattr(engine_module, "_ladder", ladder())
    names = [spec.name for spec in ladder()]
    module = types.ModuleType("nothing_engine")
    module.ENGINE = Nothing()
    monkeypatch.setitem(sys.modules, "nothing_engine", module)
    spec = EngineSpec("nothing", "nothing_engine:ENGINE", own_precisions=frozenset({"int8"}))
    register_engine(spec)
    assert [known.name for known in ladder()] == [*names, "nothing"]
    register_engine(replace(spec, name="better", needs="nvidia", fixed_tile=True), names[0])
    assert choose_engine().name == "better"
    with pytest.raises(ValueError, match="already"):
        register_engine(spec)
    with pytest.raises(ValueError, match="abacus"):
        register_engine(replace(spec, name="third"), before="abacus")
    assert [known.name for known in ladder()] == ["better", *names, "nothing"]

    model = open_model("nuclei")
    plain, better = choose_engine("nothing"), choose_engine("better")
    assert (plain.spares_gpu, better.spares_gpu) == (True, False)
    assert (plain.fixed_tile(model), better.fixed_tile(model)) == (None, model.card.tile)
    assert [plain.load(model, TILE, p) for p in ("auto", "fp32", "int8")] == [
        *("auto", "fp32", "int8")
    ]
    with pytest.raises(EngineError, match=r"does not compute nuclei\.onnx in fp16"):
        plain.load(model, TILE, "fp16")
    assert plain.build_seconds(model, TILE, "auto") is None


class IntelMachine:
    """OpenVINO's core on a machine with an Intel GPU, which the CPU computes for here."""

    def __init__(self, core, kind):
        self.core = core
        self.kind = kind
        self.compiled: list[tuple[str, str]] = []
        self.available_devices = ["CPU", "GPU.0"]

    def get_property(self, device, name):
        if device == "CPU":
            return self.core.get_property(device, name)
        return {"DEVICE_TYPE": f"Type.{self.kind}", "FULL_DEVICE_NAME": "Intel Arc A380"}[name]

    def read_model(self, model):
        return self.core.read_model(model)

    def compile_model(self, graph, device, settings):
        self.compiled.append((device, settings["INFERENCE_PRECISION_HINT"]))
        return self.core.compile_model(graph, "CPU", settings | {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.fixture
def intel(monkeypatch, request):
    core = IntelMachine(openvino_engine.shared_core(), request.param)
    monkeypatch.setattr(openvino_engine, "shared_core", lambda: core)
    return core


@pytest.mark.parametrize("intel", ["DISCRETE"], indirect=True)
def test_an_intel_graphics_card_is_used(intel):
    choice, model = choose_engine(), open_model("nuclei")
    assert (choice.name, choice.detail.split(" on ")[1]) == ("openvino-gpu", "Intel Arc A380")
    session = choice.load(model, TILE, "auto")
    assert (session.device, session.precision) == ("GPU", "fp16")
    assert set(intel.compiled) == {("GPU", "f16")}
    assert choice.load(model, TILE, "fp32").precision == "fp32"
    with pytest.raises(EngineError, match="fp16 or fp32"):
        choice.load(model, TILE, "bf16")


@pytest.mark.parametrize("intel", ["INTEGRATED"], indirect=True)
def test_graphics_in_the_cpu_is_used_only_when_asked_for(intel):
    choice = choose_engine()
    assert choice.name == "openvino"
    assert "the Intel GPU is part of the CPU" in dict(choice.skipped)["openvino-gpu"]
    assert choose_engine("openvino-gpu").name == "openvino-gpu"


@pytest.mark.parametrize("intel", ["DISCRETE"], indirect=True)
def test_an_intel_gpu_that_computes_nonsense_is_refused(intel, monkeypatch):
    other = open_model("membranes").path
    monkeypatch.setattr(intel, "read_model", lambda model: intel.core.read_model(str(other)))
    with pytest.raises(EngineError, match="computes something else"):
        choose_engine("openvino-gpu").load(open_model("nuclei"), TILE, "auto")


def test_without_an_intel_gpu_the_engine_for_it_is_refused():
    if any(name.startswith("GPU") for name in openvino_engine.shared_core().available_devices):
        pytest.skip("this machine has an Intel GPU")
    with pytest.raises(EngineError, match="no Intel GPU"):
        choose_engine("openvino-gpu")


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_not_used(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nvidia_gpus() == ((), "CUDA_VISIBLE_DEVICES hides all GPUs")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_is_survived_after_models_were_dropped_in_the_order_they_were_made():
    program = """
import faulthandler, gc, signal
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.engines import openvino as openvino_engine
from cellrt.runtime.model.file import open_model

faulthandler.enable()  # gives the thread an alternate signal stack, as pytest does
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
engine, model = choose_engine("openvino"), open_model("nuclei")
sessions = [engine.load(model, (16, 16, 16), "fp32") for _ in range(2)]
while sessions:
    sessions.pop(0)
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout.strip()) == (0, "interrupted"), finished.stderr
