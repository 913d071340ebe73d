"""``cellrt doctor``: what it says where engines work, are missing, or compute nonsense."""

from __future__ import annotations

import dataclasses
import json
import sys

from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.engines import check as engine_check


def test_it_names_the_machine_and_the_engine_that_will_run(cellrt):
    done = cellrt("doctor")
    assert done.code == 0, done.err
    for word in (
        "CPU",
        "GPU",
        "openvino",
        "million voxels/s",
        "cells are decoded on",
        "`cellrt segment` will use openvino",
    ):
        assert word in done.out


def test_json_has_every_engine_with_figures(cellrt):
    found = json.loads(cellrt("doctor", "--json", "--model", "membranes").out)
    assert found["model"] == "membranes"
    assert found["will_use"] == "openvino"
    assert found["machine"]["cores"] >= 1
    assert found["decoder"]["device"]
    assert found["decoder"]["reason"]
    best = next(engine for engine in found["engines"] if engine["name"] == "openvino")
    assert best["works"]
    assert best["difference"] < 1e-3
    assert best["voxels_per_second"] > 0


def test_what_is_missing_is_said_with_what_to_install(cellrt, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = cellrt("doctor")
    assert done.code == 0, done.err
    assert "pip install 'cellrt[onnxruntime]'" in done.out


def test_it_says_what_engines_can_be_built_with(cellrt, monkeypatch):
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    done = cellrt("doctor")
    assert "pip install 'cellrt[tensorrt]'" in done.out
    found = json.loads(cellrt("doctor", "--json").out)["builders"]
    assert [(b["name"], b["works"]) for b in found] == [
        ("tensorrt", False),
        ("tensorrt-rtx", False),
    ]


def test_without_any_engine_the_code_is_4(cellrt, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = cellrt("doctor")
    assert done.code == 4
    assert "no engine works here" in done.err


def test_an_engine_that_computes_something_else_does_not_work():
    model = open_model("nuclei")
    golden = dataclasses.replace(model.card.golden, output_mean=(0.5, 0.5, 0.5, 0.5))
    wrong = ModelFile(model.path, dataclasses.replace(model.card, golden=golden))
    check = engine_check._check("openvino", wrong)
    assert not check.works
    assert "than the model's card says" in check.detail
