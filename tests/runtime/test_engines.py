"""Engines: they agree with each other, and the ladder says what it did."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cellrt.errors import EngineError, UsageError
from cellrt.runtime import machine
from cellrt.runtime.engines import choose_engine
from cellrt.runtime.model_file import golden_input, open_model

TILE = (16, 24, 32)


def test_openvino_is_the_best_for_cpus_and_explains_itself(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    choice = choose_engine()
    assert choice.name == "openvino"
    assert "OpenVINO" in choice.reason
    assert "best that loads" in choice.reason
    assert "onnxruntime-cuda skipped: no NVIDIA driver found" in choice.reason


@pytest.mark.parametrize("name", ["nuclei", "membranes"])
def test_engines_agree(name):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    model = open_model(name)
    image = golden_input(TILE)
    engines = ("openvino", "onnxruntime")
    results = [choose_engine(e).load(model, TILE, "fp32").infer(image) for e in engines]
    assert results[0].shape == (1, 4, *TILE)
    np.testing.assert_allclose(results[0], results[1], atol=2e-3)


@pytest.mark.parametrize("name", ["nuclei", "membranes"])
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
    assert "openvino skipped" in choice.reason
    assert "pip install openvino" in choice.reason


def test_an_engine_asked_for_is_never_replaced(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="pip install openvino"):
        choose_engine("openvino")


def test_no_engine_at_all_is_an_error_with_every_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"openvino: .*onnxruntime: "):
        choose_engine()


def test_an_unknown_engine_lists_the_known_ones():
    with pytest.raises(UsageError, match="openvino, onnxruntime"):
        choose_engine("abacus")


def test_bf16_is_refused_where_it_cannot_be_had():
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    with pytest.raises(EngineError, match="fp32 on the CPU"):
        choose_engine("onnxruntime").load(open_model("nuclei"), TILE, "bf16")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_is_survived_after_models_were_dropped_in_the_order_they_were_made():
    program = """
import faulthandler, gc, signal
from cellrt.runtime.engines import choose_engine
from cellrt.runtime.model_file import open_model

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
