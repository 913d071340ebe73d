"""The whole way from an array to cells, with the bundled models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import cellrt
from cellrt.errors import InputError, UsageError
from cellrt.runtime.decoding.base import Place
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.model.file import bundled_models, open_model
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.merge import merge, predict
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.simulation import (
    ImagingParameters,
    MembraneParameters,
    NucleiParameters,
    simulate_empty,
    simulate_membranes,
    simulate_nuclei,
)


@pytest.fixture(scope="module")
def nuclei():
    return simulate_nuclei(
        (48, 72, 72), nuclei=NucleiParameters(), imaging=ImagingParameters(), seed=21
    )


@pytest.fixture(scope="module")
def membranes():
    return simulate_membranes(
        (48, 80, 80), membranes=MembraneParameters(), imaging=ImagingParameters(), seed=22
    )


def test_simulated_nuclei_are_found(nuclei):
    result = cellrt.segment(nuclei.image, diameter=16)
    assert result.labels.dtype == np.int32
    assert result.labels.shape == nuclei.image.shape
    assert cellrt.evaluate(result.labels, nuclei.labels).mean_dice > 0.7


def test_simulated_membranes_are_found(membranes):
    result = cellrt.segment(membranes.image, "membranes", diameter=24)
    assert cellrt.evaluate(result.labels, membranes.labels).mean_dice > 0.7


def test_a_finer_and_anisotropic_image_gives_the_same_cells(nuclei):
    from scipy import ndimage

    finer = ndimage.zoom(
        nuclei.image.astype(np.float32), (0.5, 2, 2), order=1, grid_mode=True, mode="nearest"
    )
    truth = ndimage.zoom(nuclei.labels, (0.5, 2, 2), order=0, grid_mode=True, mode="nearest")
    result = cellrt.segment(finer, diameter=32, anisotropy=4)
    assert result.labels.shape == finer.shape
    assert cellrt.evaluate(result.labels, truth).mean_dice > 0.6


def test_gain_and_offset_of_the_image_do_not_matter(nuclei):
    plain = cellrt.segment(nuclei.image, diameter=16).labels
    other = cellrt.segment(nuclei.image.astype(np.float32) * 3.5 + 1000, diameter=16).labels
    assert cellrt.evaluate(other, plain).mean_dice > 0.98


def test_the_record_tells_what_ran(nuclei):
    record = cellrt.segment(nuclei.image, voxel_size=(0.6, 0.6, 0.6), diameter=16).record
    json.dumps(record)
    assert record["model"]["sha256"] == open_model("nuclei").sha256
    assert record["engine"]["precision"] in ("fp32", "bf16")
    assert record["options"]["diameter"] == 16
    assert record["input"]["voxel_size_source"].startswith("user")
    inside = record["seconds"]["network_inside_engine"]
    assert 0 < inside <= record["seconds"]["network"]


class BrokenGpu:
    """Passes over the voxels that all fail, after the memory was found to do."""

    def check_memory(self, field, target=None):
        pass

    def field(self, packed):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")


def test_a_gpu_that_fails_costs_a_warning_and_no_cell(nuclei, monkeypatch):
    cpu = cellrt.segment(nuclei.image, diameter=16, anisotropy=1)
    found = BrokenGpu(), Place("a GPU", "it is there")
    monkeypatch.setattr("cellrt.runtime.decoding.flows.gpu_or_cpu.find_gpu", lambda: found)
    result = cellrt.segment(nuclei.image, diameter=16, anisotropy=1)
    np.testing.assert_array_equal(result.labels, cpu.labels)
    (warning,) = result.warnings
    assert warning.startswith("a GPU could not decode (RuntimeError: CUDA_ERROR_OUT_OF_MEMORY)")
    decoder = result.record["decoder"]
    assert (decoder["device"], decoder["reason"]) == ("CPU", warning)
    # Who names an engine for CPUs keeps the GPU for something else.
    spared = cellrt.segment(nuclei.image, diameter=16, anisotropy=1, engine="openvino")
    assert not spared.warnings
    assert spared.record["decoder"]["reason"] == "as --engine openvino was asked for"


def noise(name):
    rng = np.random.default_rng(2)
    shape = (24, 80, 80)
    ramp = np.broadcast_to(np.linspace(100, 200, 80), shape)
    return {
        "shot noise": rng.poisson(100, shape),
        "read noise": rng.normal(400, 6, shape),
        "single photons": rng.poisson(0.3, shape),
        "uneven light": rng.poisson(ramp),
    }[name].astype(np.uint16)


@pytest.mark.parametrize("name", ["shot noise", "read noise", "single photons", "uneven light"])
@pytest.mark.parametrize("model", bundled_models())
def test_empty_wells_are_empty(name, model):
    card = open_model(model).card
    well = noise(name)[0] if card.planar else noise(name)
    result = cellrt.segment(well, model, voxel_size=(card.voxel_size_um,) * 3)
    assert (result.labels > 0).mean() < 0.02
    assert len(result.table) <= 2


@pytest.mark.parametrize("name", ["shot noise", "read noise", "single photons"])
@pytest.mark.parametrize("model", bundled_models())
def test_empty_wells_are_empty_where_no_size_is_known(name, model):
    well = noise(name)[0] if open_model(model).card.planar else noise(name)
    result = cellrt.segment(well, model)
    assert len(result.table) == 0
    assert any("could not be estimated" in warning for warning in result.warnings)


@pytest.mark.parametrize("seed", [0, 4])
def test_stray_light_is_not_enlarged_until_it_looks_like_cells(seed):
    stack = simulate_empty((40, 96, 96), kind="membranes", seed=seed)
    result = cellrt.segment(stack.image, "membranes-3dcellseg")
    assert len(result.table) == 0
    assert any("could not be estimated" in warning for warning in result.warnings)


def test_a_constant_image_gives_zero_cells_and_warnings():
    result = cellrt.segment(np.full((20, 30, 40), 7, np.uint16))
    assert result.labels.max() == 0
    assert len(result.table) == 0
    assert any("constant" in w for w in result.warnings)


def test_bad_arrays_and_options_are_refused():
    with pytest.raises(InputError, match="NaN"):
        cellrt.segment(np.full((8, 8, 8), np.nan, np.float32))
    with pytest.raises(InputError, match=r"dimension|axes"):
        cellrt.segment(np.zeros((2, 2, 2, 8, 8), np.uint8))
    with pytest.raises(UsageError, match="mode"):
        cellrt.segment(np.zeros((8, 8, 8), np.uint8), mode="sloppy")


def test_engines_give_the_same_cells(nuclei):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    a = cellrt.segment(nuclei.image, diameter=16, engine="openvino", precision="fp32").labels
    b = cellrt.segment(nuclei.image, diameter=16, engine="onnxruntime").labels
    scores = cellrt.evaluate(a, b, thresholds=[0.75])
    assert scores.matching[0].average_precision > 0.95


@settings(max_examples=6, phases=[Phase.generate])
@given(
    axis=st.integers(0, 2),
    length=st.integers(105, 150),
    others=st.tuples(st.integers(17, 24), st.integers(17, 24)),
    blend=st.integers(0, 8),
    seed=st.integers(0, 9),
)
def test_tiles_equal_the_whole_with_the_bundled_network(axis, length, others, blend, seed):
    """With a halo of the receptive field's radius the tiling cannot be seen in the fields."""
    model = open_model("nuclei")
    shape = (*others[:axis], length, *others[axis:])
    tile = tuple(112 if n == length else 24 for n in shape)
    image = np.random.default_rng(seed).gamma(2, 100, shape).astype(np.uint16)
    prepared = prepare_image(image, shape, model.card.normalisation)
    whole = plan_tiles(shape, halo=0)
    tiled = plan_tiles(shape, halo=model.card.receptive_field_radius, blend=blend, tile=tile)
    assert len(whole) == 1
    results = []
    for grid in (whole, tiled):
        session = choose_engine().load(model, grid.tile, "fp32")
        merged = np.empty((4, *shape), np.float32)
        for block in merge(grid, predict(grid, reader(prepared, grid), [session.infer])):
            merged[:, block.z, block.y] = block.fields
        results.append(merged)
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)


def reader(image, grid):
    """Read tiles of a prepared image."""

    def read(tile):
        stop = tuple(s + n for s, n in zip(tile.start, grid.tile, strict=True))
        return image.read(tile.start, stop)

    return read
