"""Times, energy and layers of an engine on tiles, measured in a process of its own."""

from __future__ import annotations

import pytest

from cellrt.errors import EngineError
from cellrt.evaluation.tile_runs import percentiles, time_layers, time_tiles
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines.base import EngineSpec
from cellrt.runtime.network.engines.ladder import engine_named

TILE = (8, 16, 16)
ENGINE = """
import types
from cellrt.runtime.network.engines.base import LayerTime
def available(*, asked=False):
    return "an engine in a file"
def load(model, tile, *, precision, note):
    def infer(image):
        assert image.shape == (3, 1, 8, 16, 16)
    return types.SimpleNamespace(infer=infer, largest_batch=3)
def build_seconds(model, tile, precision):
    return 12.5
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    (tmp_path / "engine_in_a_file.py").write_text(ENGINE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return EngineSpec("in-a-file", "engine_in_a_file", "nvidia")


def test_an_engine_on_a_gpu_has_its_energy_and_takes_no_more_tiles_than_it_can(spec, stub_driver):
    stub_driver.says(CUDA=13000, GPUS="a card/8.9/48/20475", DRIVER="580.95", WATTS="100")
    times = time_tiles(spec, open_model("nuclei"), TILE, "auto", batch=8, runs=100)
    assert (times.tile, times.batch, times.build_seconds) == (TILE, 3, 12.5)
    assert times.runs >= 100
    assert times.p50_ms <= times.p95_ms <= times.p99_ms
    assert times.energy == "GPU 0, by NVML"
    # At 100 W, whatever the speed is.
    watts = times.joules_per_million_voxels * times.voxels_per_second / 1e6
    assert watts == pytest.approx(100, rel=0.3)


def test_energy_that_nobody_tells_is_said_and_ends_nothing(spec, stub_driver):
    stub_driver.says(CUDA=13000, GPUS="a card/8.9/48/20475")
    times = time_tiles(spec, open_model("nuclei"), TILE, "auto", batch=3, runs=2)
    assert times.joules_per_million_voxels is None
    assert times.energy.startswith("not known: NVML says")
    assert (times.runs, times.p95_ms, times.p99_ms) == (2, None, None)


def test_a_percentile_is_one_of_the_values_and_needs_enough_of_them():
    values = [float(value) for value in range(100, 0, -1)]
    assert percentiles(values) == (50, 95, 99)
    assert percentiles(values[:99])[2] is None
    assert percentiles(values[:19]) == (91, None, None)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_layers_of_the_network_add_up_to_it(name):
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    layers = time_layers(engine_named(name), open_model("nuclei"), TILE, "fp32", batch=1)
    kinds = [layer.kind for layer in layers]
    assert sum("Conv" in kind for kind in kinds) > 5
    assert len({layer.name for layer in layers}) == len(layers)
    assert all(layer.milliseconds >= 0 for layer in layers)
    assert sum(layer.milliseconds for layer in layers) > 0
    assert all(layer.implementation for layer in layers)


def test_an_engine_that_does_not_tell_of_layers_says_so(spec):
    with pytest.raises(EngineError, match="in-a-file does not tell how long its layers take"):
        time_layers(spec, open_model("nuclei"), TILE, "auto", batch=1)
