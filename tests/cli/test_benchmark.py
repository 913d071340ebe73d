"""``cellrt benchmark``: a row for every engine that works, measured in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellrt.cli.benchmark import _row
from cellrt.evaluation import engine_runs as module
from cellrt.runtime.machine.hardware import gpu_memory_bytes
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines.ladder import EngineChoice, choose_engine, engine_named
from cellrt.simulation import simulate_nuclei


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "stack.tif"
    image = simulate_nuclei((24, 48, 48), seed=3).image
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": "ZYX"})
    return path


def test_every_working_engine_has_a_row_with_figures(cellrt, stack):
    done = cellrt("benchmark", "nuclei", "--stack", stack, "--repeats", 1, "--json")
    assert done.code == 0, done.err
    runs = json.loads(done.out)
    assert {run["engine"] for run in runs} == set(module.working_engines())
    assert runs[0]["agreement"] == 1.0
    for run in runs:
        assert run["agreement"] > 0.95  # the same network in fp32
        assert 0 < run["voxels_per_second"] < run["network_voxels_per_second"]
        assert run["peak_memory_bytes"] > 1e8
        assert run["seconds"]["network"] > 0
        if choose_engine(run["engine"]).spec.needs == "nvidia":
            continue
        assert run["peak_device_memory_bytes"] is None
        assert run["build_seconds"] is None
    assert len(list(stack.parent.iterdir())) == 1


def test_an_engine_that_cannot_run_a_model_has_no_row(stack, monkeypatch):
    from cellrt.errors import CellrtError

    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

    def measure(stack, model, choice, words, repeats):
        if choice.name == "onnxruntime":
            raise CellrtError("it cannot run this model")
        run = module.EngineRun("nuclei", choice.name, "fp32", "CPU", 2.0, 1.0, {}, 1, 0)
        return run, np.zeros((4, 4, 4), np.int32)

    monkeypatch.setattr(module, "_measure", measure)
    runs = module.compare_engines(stack, [open_model("nuclei")], ["openvino", "onnxruntime"])
    assert [run.engine for run in runs] == ["openvino"]
    with pytest.raises(CellrtError, match="cannot run"):
        module.compare_engines(stack, [open_model("nuclei")], ["onnxruntime"])


def test_tf32_is_measured_beside_fp32_and_a_file_in_fp16_as_it_is(stack, monkeypatch):
    asked = []

    def measure(stack, model, choice, words, repeats):
        precision = words[1]
        asked.append((model.path.name, choice.name, precision))
        computed = "fp16" if precision == "auto" else precision
        run = module.EngineRun("nuclei", choice.name, computed, "GPU", 2.0, 1.0, {}, 1, 0)
        return run, np.zeros((4, 4, 4), np.int32)

    monkeypatch.setattr(
        module, "choose_engine", lambda name: EngineChoice(engine_named(name), "a stand-in", True)
    )
    monkeypatch.setattr(module, "_measure", measure)
    model = open_model("nuclei")
    runs = module.compare_engines(stack, [model, model.variant("fp16")], ["onnxruntime-cuda"])
    assert [run.precision for run in runs] == ["fp32", "tf32", "fp16", "fp16"]
    assert asked[-1] == ("nuclei.fp16.onnx", "onnxruntime-cuda", "auto")
    asked.clear()
    module.compare_engines(stack, [model], ["openvino"])
    assert [precision for _, _, precision in asked] == ["fp32", "auto"]


def test_a_stack_that_cannot_be_read_ends_with_its_message(cellrt, tmp_path):
    (tmp_path / "text.tif").write_text("hello")
    done = cellrt("benchmark", "nuclei", "--stack", tmp_path / "text.tif")
    assert done.code == 3
    assert "is no TIFF file" in done.err


@pytest.fixture
def fake_driver(tmp_path, monkeypatch):
    """Put an ``nvidia-smi`` first on PATH; give it the shell lines to run."""

    def install(lines):
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install


ON_LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="lists processes in /proc")


@ON_LINUX
def test_the_peak_of_the_device_memory_is_that_of_the_process_and_not_of_others(
    stack, fake_driver, tmp_path, monkeypatch
):

    # Every process there is holds 100 MiB on one GPU; on the other one 200, then 500, then 300.
    fake_driver(f"""
        count=$(cat {tmp_path}/count 2>/dev/null || echo 0); echo $((count + 1)) > {tmp_path}/count
        case $count in 0) used=200;; 1) used=500;; *) used=300;; esac
        for process in /proc/[0-9]*; do
            echo "${{process#/proc/}}, 100"; echo "${{process#/proc/}}, $used"
        done""")
    choice = choose_engine("openvino")
    here, _ = module._measure(stack, open_model("nuclei"), choice, [], 1)
    assert here.peak_device_memory_bytes is None
    assert not (tmp_path / "count").exists()  # the driver is asked about engines on GPUs only

    choice = dataclasses.replace(choice, spec=dataclasses.replace(choice.spec, needs="nvidia"))
    there, _ = module._measure(stack, open_model("nuclei"), choice, [], 1)
    assert there.peak_device_memory_bytes == 600 * 2**20
    assert there.build_seconds is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("echo '7, 100'; echo '77, 900'; echo '7, 20'", 120 * 2**20),
        ("echo '77, 900'", None),
        ("echo '7, [N/A]'", None),  # Windows
        ("echo '[Not Supported]'", None),
        ("echo 'no driver' >&2; exit 9", None),
        ("", None),
    ],
)
def test_device_memory_that_the_driver_does_not_tell_is_left_out(fake_driver, lines, expected):
    fake_driver(lines)
    assert gpu_memory_bytes(7) == expected


def test_the_build_time_is_that_of_the_engine_which_the_gpu_would_load(
    cellrt, tmp_path, monkeypatch
):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    from cellrt.runtime.machine.driver import Gpu
    from cellrt.runtime.network.engines.tensorrt import session
    from cellrt.runtime.network.engines.tensorrt.cache import FOLDER_VARIABLE, default_cache

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "engines"))
    card = Gpu("NVIDIA RTX 4090", "24564 MiB", "580.95", "8.9")
    monkeypatch.setattr(session, "nvidia_gpus", lambda: ((card,), ""))
    for target in ("sm86", "sm89"):
        assert cellrt("build", "nuclei", "--target", target, "--quiet").code == 0
    built = {entry.key.compute_capability: entry for entry in default_cache().entries()}
    model = open_model("nuclei").variant("fp16")
    tile, engine = model.card.tile, session.TENSORRT_RTX
    assert engine.build_seconds(model, tile, "auto") == built["sm89"].build_seconds > 0
    assert engine.build_seconds(open_model("nuclei"), tile, "fp32") is None
    assert engine.build_seconds(model, (32, 32, 32), "auto") is None


def test_a_row_has_gpu_memory_and_build_time_only_where_there_are_any():
    run = module.EngineRun("nuclei", "openvino", "fp32", "CPU", 2e6, 1e6, {}, 3 * 10**8, 5)
    on_gpu = dataclasses.replace(run, peak_device_memory_bytes=2_345_000_000, build_seconds=6.78)
    assert _row(run).split()[3:] == ["2.00", "1.00", "300", "1.000"]
    assert _row(on_gpu).split()[3:] == ["2.00", "1.00", "300", "2345", "6.8", "1.000"]
    assert len(_row(run)) == len(_row(on_gpu))
