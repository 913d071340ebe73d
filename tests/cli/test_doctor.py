"""``cellrt doctor``: what it says where engines work, are missing, or compute nonsense."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import types

import pytest

from cellrt.errors import EngineError
from cellrt.runtime.machine import preflight as preflight_module
from cellrt.runtime.machine.apart import call_apart
from cellrt.runtime.machine.driver import nvidia_driver
from cellrt.runtime.machine.preflight import preflight
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.engines import check as engine_check
from cellrt.runtime.network.engines import ladder as ladder_module
from cellrt.runtime.network.engines.base import EngineSpec
from cellrt.runtime.network.engines.openvino import CPU


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
    assert best["tried"]
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


def test_a_machine_without_an_nvidia_gpu_has_nothing_to_mend(cellrt):
    if nvidia_driver().gpus or nvidia_driver().remedy:
        pytest.skip("there is a GPU here")
    assert json.loads(cellrt("doctor", "--json").out)["preflight"] == []


CARD = "NVIDIA RTX A4000/8.6/48/16376"


def findings(done):
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return {look["subject"]: look for look in found["preflight"]}, found


def test_a_driver_that_is_too_old_is_told_with_what_to_install(cellrt_process, stub_driver):
    stub_driver.says(CUDA=12040, DRIVER="550.54.14", GPUS=CARD, FREE_MIB=8000)
    looks, found = findings(cellrt_process("doctor", "--json"))
    assert found["machine"]["gpus"][0]["driver"] == "550.54.14"
    assert looks["driver"]["fine"]
    assert "CUDA 12.4" in looks["driver"]["detail"]
    assert "cellrt[cu12]" in looks["capability"]["detail"]
    assert looks["memory"] == {
        "subject": "memory",
        "fine": True,
        "detail": "8.4 GB of NVIDIA RTX A4000 are free",
    }
    if not looks["kernels"]["fine"]:  # as where numba-cuda is missing, or is for CUDA 13
        assert "pip install 'cellrt[cu12]'" in looks["kernels"]["detail"]
    assert found["will_use"] == "openvino"
    assert found["decoder"]["device"] == "CPU"


@pytest.mark.parametrize(
    ("says", "subject", "mends"),
    [
        ({"CUDA": 13000, "cuInit": 803}, "driver", "restart the machine"),
        ({"CUDA": 13000, "cuInit": 999}, "driver", "nvidia_uvm"),
        ({"CUDA": 11040, "DRIVER": "470.1", "GPUS": CARD}, "driver", "update it to 525"),
        ({"CUDA": 13000, "GPUS": "Old card/3.5/13/4096"}, "capability", "--engine openvino"),
        ({"CUDA": 13000, "GPUS": CARD, "FREE_MIB": 300}, "memory", "close other programs"),
        (
            {"CUDA": 13000, "GPUS": CARD, "cuDevicePrimaryCtxRetain": 2},
            "memory",
            "close other programs",
        ),
    ],
)
def test_what_is_wrong_with_a_gpu_is_said_with_what_mends_it(stub_driver, says, subject, mends):
    stub_driver.says(**says)
    (look,) = (look for look in preflight() if look.subject == subject)
    assert not look.fine
    assert mends in look.detail
    assert "\n" not in look.detail


def test_a_look_that_fails_is_a_finding_and_no_end(stub_driver, monkeypatch):
    def breaks():
        raise RuntimeError("never seen before\nand more")

    monkeypatch.setattr(preflight_module, "numpy_trouble", breaks)
    stub_driver.says(CUDA=13000, GPUS=CARD, FREE_MIB=8000)
    found = {look.subject: look for look in preflight()}
    assert found["numpy"].detail == "it was not found out: RuntimeError: never seen before"
    assert found["memory"].fine


@pytest.mark.parametrize(
    ("printed", "fine", "said"),
    [
        ("NV Power Mode: MAXN\n0", True, "MAXN"),
        ("NV Power Mode: MAXN_SUPER\n2", True, "MAXN_SUPER"),
        ("NV Power Mode: 15W\n1", False, "sudo nvpmodel -m 2 && sudo jetson_clocks"),
        ("", False, "sudo nvpmodel -q"),
    ],
)
def test_the_power_mode_of_a_jetson_is_said(
    stub_driver, monkeypatch, tmp_path, printed, fine, said
):
    program, modes = tmp_path / "nvpmodel", tmp_path / "nvpmodel.conf"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n")
    program.chmod(0o755)
    modes.write_text(
        "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(preflight_module, "_POWER_MODES", modes)
    stub_driver.says(CUDA=12060, GPUS="Orin/8.7/8/7620", FREE_MIB=4000, INTEGRATED=1)
    found = {look.subject: look for look in preflight()}
    assert found["power"].fine == fine
    assert said in found["power"].detail
    assert "the CPU uses" in found["memory"].detail


def test_an_engine_that_is_not_built_is_not_built_unasked(cellrt, monkeypatch):
    built = []

    class Engine:
        """One whose engines are built once and kept; none is."""

        def available(self, *, asked):
            return "TensorRT 99 on a card"

        def build_seconds(self, model, tile, precision):
            return None

        def load(self, *arguments, **options):
            built.append(arguments)
            raise EngineError("the card is too old")

    module = types.ModuleType("card_engine")
    module.ENGINE = Engine()
    monkeypatch.setitem(sys.modules, "card_engine", module)
    monkeypatch.setattr(ladder_module, "_ladder", ladder_module.ladder())
    spec = EngineSpec("card", "card_engine:ENGINE", fixed_tile=True)
    ladder_module.register_engine(spec, ladder_module.ladder()[0].name)
    done = cellrt("doctor")
    assert "cellrt build nuclei --engine card" in done.out
    assert "`cellrt segment` will use card, and build its engine first." in done.out
    assert built == []
    done = cellrt("doctor", "--build")
    assert "the card is too old" in done.out
    assert "`cellrt segment` will use openvino." in done.out
    assert built


def test_an_engine_that_crashes_does_not_take_the_doctor_with_it(cellrt, monkeypatch):
    def crashes(seconds, function, *arguments):
        return call_apart(seconds, os.abort)

    monkeypatch.setattr(engine_check, "nvidia_gpus", lambda: (("a GPU",), ""))
    monkeypatch.setattr(engine_check, "call_apart", crashes)
    found = json.loads(cellrt("doctor", "--json").out)
    checks = {check["name"]: check for check in found["engines"]}
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"):
        assert "brought its process down (SIGABRT)" in checks[name]["detail"]
    assert found["will_use"] == "openvino"


def test_tried_is_what_was_loaded_and_nothing_else(cellrt, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = json.loads(cellrt("doctor", "--json").out)
    tried = {check["name"]: check["tried"] for check in found["engines"] + found["builders"]}
    assert {name for name, was in tried.items() if was} == {"openvino"}

    def fails(*_, **__):
        raise EngineError("it breaks")

    monkeypatch.setattr(type(CPU), "load", fails)
    check = engine_check._check("openvino", open_model("nuclei"))
    assert (check.works, check.tried) == (False, True)


def test_one_engine_is_checked_alone_and_must_work(cellrt, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = cellrt("doctor", "--engine", "OpenVINO")
    assert done.code == 0
    assert "`cellrt segment --engine openvino` will use openvino." in done.out
    dead = cellrt("doctor", "--engine", "onnxruntime-cuda", "--json")
    assert dead.code == 4
    found, _ = json.JSONDecoder().raw_decode(dead.out)
    assert [check["name"] for check in found["engines"]] == ["onnxruntime-cuda"]
    assert found["will_use"] is None
    assert "CUDA_VISIBLE_DEVICES hides all GPUs; take that variable out" in dead.err
    assert cellrt("doctor", "--engine", "abacus").code == 2
