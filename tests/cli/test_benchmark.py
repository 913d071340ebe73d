"""``cellrt benchmark``: a row for every engine that works, measured in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellrt.cli.benchmark import _row
from cellrt.evaluation import engine_runs as module
from cellrt.evaluation.tile_runs import TileTimes
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines import ladder as ladder_module
from cellrt.runtime.network.engines.base import EngineSpec
from cellrt.runtime.network.engines.ladder import choose_engine, engine_named
from cellrt.simulation import simulate_nuclei

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "stack.tif"
    image = simulate_nuclei((24, 48, 48), seed=3).image
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": "ZYX"})
    return path


def row(engine="openvino", precision="fp32", **more):
    return module.EngineRun(
        "nuclei", engine, precision, "CPU", 2e6, 1e6, {}, 3 * 10**8, 5, (8, 16, 16), **more
    )


def test_every_working_engine_has_a_row_with_figures_below_that_of_the_cpu(cellrt, stack):
    words = ("--stack", stack, "--repeats", 1, "--tile-runs", 20, "--json")
    done = cellrt("benchmark", "nuclei", *words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["machine"]["cores"] >= 1
    runs = found["runs"]
    assert {run["engine"] for run in runs} == set(module.working_engines())
    assert runs[0]["agreement"] == 1.0
    assert [run["reference"] for run in runs] == [True] + [False] * (len(runs) - 1)
    assert (runs[0]["precision"], choose_engine(runs[0]["engine"]).spec.needs) == ("fp32", "")
    for run in runs:
        assert run["agreement"] > 0.95  # the same network
        assert 0 < run["voxels_per_second"] < run["network_voxels_per_second"]
        assert run["peak_memory_bytes"] > 1e8
        assert run["seconds"]["network"] > 0
        tile = run["tile"]
        assert tile["tile"] == run["tile_zyx"]
        assert tile["runs"] >= 20
        assert 0 < tile["p50_ms"] <= tile["p95_ms"]
        assert (tile["p99_ms"] is None) == (tile["runs"] < 100)
        # Somebody tells the energy, or it is said why nobody does.
        known = tile["joules_per_million_voxels"]
        assert tile["energy"].startswith("not known: ") if known is None else known > 0
        if choose_engine(run["engine"]).spec.needs == "nvidia":
            continue
        assert run["peak_device_memory_bytes"] is None
        assert tile["build_seconds"] is None
    assert len(list(stack.parent.iterdir())) == 1


def test_engine_precision_model_and_layers_are_obeyed_beside_the_reference(cellrt, stack):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    words = ("--stack", stack, "--repeats", 1, "--tile-runs", 1, "--batch", 2, "--layers")
    asked = ("--model", "nuclei", "--engine", "onnxruntime", "--precision", "fp32")
    done = cellrt("benchmark", *asked, *words)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["nuclei", "openvino", "fp32", "1"],
        ["nuclei", "onnxruntime", "fp32", "1"],
    ]
    assert "batches of 2 of nuclei in onnxruntime" in done.err
    assert any(line.startswith("energy of nuclei openvino fp32") for line in lines)
    assert any(line.startswith("p50, p95, p99: per tile of ") for line in lines)
    for engine in ("openvino", "onnxruntime"):
        title = f"layers of nuclei {engine} fp32"
        (begin,) = (n for n, line in enumerate(lines) if line.startswith(title))
        assert "Conv" in lines[begin + 1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--engine", "tensorflow"), 2, "no engine 'tensorflow'; choose one of tensorrt,"),
        (("--engine", "openvino-gpu"), 4, "--engine openvino-gpu cannot be had here: "),
        (("--precision", "fp64"), 2, "no precision 'fp64'; choose one of auto, fp32"),
        (("--layers", "--tile-runs", "0"), 2, "--layers profiles a tile"),
        (("no-such-model",), 3, "no-such-model"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(cellrt, words, code, said):
    if "openvino-gpu" in words and "openvino-gpu" in module.working_engines():
        pytest.skip("it can, here")
    done = cellrt("benchmark", *words)
    assert done.code == code
    assert said in done.err
    assert done.out == ""


CRASHING = """
import os
def available(*, asked=False):
    if os.environ["CRASH"] == "available":
        os.abort()
    return "an engine that crashes"
def load(model, tile, **rest):
    os.abort()
def layers(model, image, precision, runs):
    os.abort()
"""


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """An engine whose library brings the process down."""
    (tmp_path / "crashing.py").write_text(CRASHING, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ladder_module, "_ladder", ladder_module._ladder)
    monkeypatch.setenv("CRASH", "available")
    spec = EngineSpec("crashing", "crashing")
    ladder_module.register_engine(spec, before="openvino")
    return spec


@POSIX
def test_an_engine_that_crashes_is_none_that_works(cellrt, crashing):
    assert "crashing" not in module.working_engines()
    assert "openvino" in module.working_engines()
    done = cellrt("benchmark", "--engine", "crashing")
    assert done.code == 4
    assert "SIGABRT" in done.err


@POSIX
def test_one_that_crashes_when_it_is_timed_or_profiled_keeps_its_row(stack, crashing, monkeypatch):
    monkeypatch.setenv("CRASH", "load")
    monkeypatch.setattr(
        module, "_measure", lambda *_: (row("crashing"), np.zeros((4, 4, 4), np.int32))
    )
    told, one = [], {"precisions": ["fp32"], "tile_runs": 1}
    (run,) = module.compare_engines(
        stack, [open_model("nuclei")], ["crashing"], **one, tell=told.append
    )
    assert run.tile is None
    assert any("tiles of nuclei in crashing" in text and "SIGABRT" in text for text in told)
    times = TileTimes((8, 16, 16), 1, 1, 1.0, None, None, 1.0, None, "")
    monkeypatch.setattr(module, "time_tiles", lambda *_, **__: times)
    (run,) = module.compare_engines(
        stack, [open_model("nuclei")], ["crashing"], **one, layers=True, tell=told.append
    )
    assert run.tile == times
    assert any("layers of nuclei in crashing" in text and "SIGABRT" in text for text in told)


@pytest.mark.parametrize(
    ("code", "printed", "expected"),
    [
        (4, "warning: x\ncellrt: it cannot\n", "it cannot"),
        (-11, "half a line", "it ended with signal 11"),
        (3221225477, "", "it ended with code 3221225477"),  # how Windows says the same
    ],
)
def test_why_a_run_ended_is_one_line(code, printed, expected):
    assert module._last_words(code, printed) == expected


def test_an_engine_that_cannot_run_a_model_has_no_row(stack, monkeypatch):
    from cellrt.errors import CellrtError

    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

    def measure(stack, model, spec, words, repeats, known):
        if spec.name == "onnxruntime":
            raise CellrtError("it cannot run this model")
        return None if "fp32" in known else (row(spec.name), np.zeros((4, 4, 4), np.int32))

    monkeypatch.setattr(module, "_measure", measure)
    models, told = [open_model("nuclei")], []
    runs = module.compare_engines(stack, models, ["openvino", "onnxruntime"], tile_runs=0)
    assert [run.engine for run in runs] == ["openvino"]
    # That the reference runs is no answer to who asked for another engine.
    with pytest.raises(CellrtError, match="cannot run"):
        module.compare_engines(
            *(stack, models, ["onnxruntime"]),
            reference_engine="openvino",
            tile_runs=0,
            tell=told.append,
        )
    assert "nuclei in onnxruntime with --precision fp32: it cannot run this model" in told


def test_tf32_is_measured_beside_fp32_and_a_file_in_fp16_as_it_is(stack, monkeypatch):
    asked = []

    def measure(stack, model, spec, words, repeats, known):
        precision = words[1]
        asked.append((model.path.name, spec.name, precision))
        computed = "fp16" if precision == "auto" else precision
        if computed in known:
            return None
        return row(spec.name, computed), np.zeros((4, 4, 4), np.int32)

    monkeypatch.setattr(module, "_measure", measure)
    model = open_model("nuclei")
    runs = module.compare_engines(
        *(stack, [model, model.variant("fp16")], ["onnxruntime-cuda"]),
        reference_engine="openvino",
        tile_runs=0,
    )
    assert [run.precision for run in runs] == ["fp32", "fp32", "tf32", "fp16", "fp16"]
    assert [run.engine for run in runs] == ["openvino", *["onnxruntime-cuda"] * 4]
    assert asked[-1] == ("nuclei.fp16.onnx", "onnxruntime-cuda", "auto")
    asked.clear()
    module.compare_engines(stack, [model], ["openvino"], tile_runs=0)
    assert [precision for _, _, precision in asked] == ["fp32", "auto"]


def test_a_stack_that_cannot_be_read_ends_with_its_message(cellrt, tmp_path):
    (tmp_path / "text.tif").write_text("hello")
    done = cellrt("benchmark", "nuclei", "--stack", tmp_path / "text.tif")
    assert done.code == 3
    assert "is no TIFF file" in done.err


ON_LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="lists processes in /proc")


@ON_LINUX
def test_the_peak_of_the_device_memory_is_that_of_the_process_on_all_gpus(stack, stub_driver):
    # Every process there is holds 100 MiB on one GPU; on the other one 200, then 500, then 300.
    stub_driver.says(DRIVER="580.95", HELD="200,500,300")
    spec = engine_named("openvino")
    here, _ = module._measure(stack, open_model("nuclei"), spec, [], 1)
    assert here.peak_device_memory_bytes is None  # of engines on the CPU nobody asks
    spec = dataclasses.replace(spec, needs="nvidia")
    there, _ = module._measure(stack, open_model("nuclei"), spec, [], 1)
    assert there.peak_device_memory_bytes == 600 * 2**20


def test_the_build_time_is_that_of_the_engine_which_the_gpu_would_load(
    cellrt, tmp_path, monkeypatch
):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    from cellrt.runtime.machine.driver import Gpu
    from cellrt.runtime.network.engines.tensorrt import engine as tensorrt_engine
    from cellrt.runtime.network.engines.tensorrt.cache import FOLDER_VARIABLE, default_cache

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "engines"))
    card = Gpu("NVIDIA RTX 4090", "24564 MiB", "580.95", "8.9")
    monkeypatch.setattr(tensorrt_engine, "nvidia_gpus", lambda: ((card,), ""))
    for target in ("sm86", "sm89"):
        assert cellrt("build", "nuclei", "--target", target, "--quiet").code == 0
    built = {entry.key.compute_capability: entry for entry in default_cache().entries()}
    model = open_model("nuclei").variant("fp16")
    tile, engine = model.card.tile, tensorrt_engine.TENSORRT_RTX
    assert engine.build_seconds(model, tile, "auto") == built["sm89"].build_seconds > 0
    assert engine.build_seconds(open_model("nuclei"), tile, "fp32") is None
    assert engine.build_seconds(model, (32, 32, 32), "auto") is None


def test_a_row_has_gpu_memory_energy_and_build_time_only_where_there_are_any():
    tile = TileTimes((8, 16, 16), 4, 100, 1.5, 2.5, 3.5, 1e6, 0.1234, "GPU 0, by NVML", 6.78)
    run = row()
    on_gpu = dataclasses.replace(run, peak_device_memory_bytes=2_345_000_000, tile=tile)
    nothing = ["-"] * 5
    assert _row(run).split()[3:] == [*nothing, "2.00", "1.00", "300", "-", "-", "1.000"]
    assert _row(on_gpu).split()[3:] == [
        *("4", "1.50", "2.50", "3.50", "0.123", "2.00", "1.00", "300", "2345", "6.8", "1.000")
    ]
    assert len(_row(run)) == len(_row(on_gpu))
