"""``cellrt benchmark``: a row for every engine that works, measured in processes of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from cellrt.evaluation import engines as module
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
    assert len(list(stack.parent.iterdir())) == 1


def test_an_engine_that_cannot_run_a_model_has_no_row(stack, monkeypatch):
    from cellrt.errors import CellrtError
    from cellrt.runtime.model_file import open_model

    def measure(stack, model, words, repeats):
        if "onnxruntime" in words:
            raise CellrtError("it cannot run this model")
        run = module.EngineRun("nuclei", words[1], "fp32", "CPU", 2.0, 1.0, {}, 1, 0)
        return run, np.zeros((4, 4, 4), np.int32)

    monkeypatch.setattr(module, "_measure", measure)
    runs = module.compare_engines(stack, [open_model("nuclei")], ["openvino", "onnxruntime"])
    assert [run.engine for run in runs] == ["openvino"]
    with pytest.raises(CellrtError, match="cannot run"):
        module.compare_engines(stack, [open_model("nuclei")], ["onnxruntime"])


def test_a_stack_that_cannot_be_read_ends_with_its_message(cellrt, tmp_path):
    (tmp_path / "text.tif").write_text("hello")
    done = cellrt("benchmark", "nuclei", "--stack", tmp_path / "text.tif")
    assert done.code == 3
    assert "is not a TIFF file" in done.err
