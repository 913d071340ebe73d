"""A model that is loaded once: for many images, and for many ways to decode one."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellrt
from cellrt.errors import CellrtWarning, InputError, UsageError
from cellrt.runtime.model.card_parts import Normalisation
from cellrt.runtime.network.engines.choice import EngineChoice
from cellrt.simulation import ImagingParameters, NucleiParameters, simulate_nuclei


@pytest.fixture(scope="module")
def image():
    return simulate_nuclei(
        (40, 64, 64), nuclei=NucleiParameters(), imaging=ImagingParameters(), seed=31
    ).image


@pytest.fixture
def loads(monkeypatch):
    """Shapes of tiles for which a network was compiled."""
    seen = []
    load = EngineChoice.load

    def counted(self, model, tile, *arguments, **known):
        seen.append(tile)
        return load(self, model, tile, *arguments, **known)

    monkeypatch.setattr(EngineChoice, "load", counted)
    return seen


@pytest.fixture
def runs(monkeypatch):
    """How often the network ran over an image."""
    from cellrt.runtime import stages

    seen = []
    network_fields = stages.network_fields

    def counted(*arguments, **known):
        seen.append(1)
        return network_fields(*arguments, **known)

    monkeypatch.setattr(stages, "network_fields", counted)
    return seen


def test_many_images_of_one_shape_compile_the_network_once(image, loads):
    cells = cellrt.Segmenter("nuclei")
    results = [cells(image + 10 * n, diameter=16) for n in range(3)]
    assert len(loads) == 1
    assert all(len(result.table) for result in results)


def test_the_search_for_the_cells_size_shares_the_network(image, loads):
    cells = cellrt.Segmenter("nuclei")
    with pytest.warns(CellrtWarning, match="estimated"):
        cells(image)
    first = len(loads)
    with pytest.warns(CellrtWarning, match="estimated"):
        cells(image)
    assert len(loads) == first == 2


def test_the_cells_are_those_of_a_single_call(image):
    alone = cellrt.segment(image, diameter=16)
    cells = cellrt.Segmenter("nuclei")
    cells(np.roll(image, 5, 2), diameter=14)
    np.testing.assert_array_equal(cells(image, diameter=16).labels, alone.labels)


def test_fields_are_decoded_often_and_stay_the_same(image, runs):
    cells = cellrt.Segmenter("nuclei")
    fields = cells.predict(image, diameter=16)
    before = np.array(fields.kept)
    usual = cells.decode(fields)
    counts = [
        len(cells.decode(fields, {"foreground_threshold": t}).table)
        for t in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    exact = cells.decode(fields, mode="exact")
    again = cells.decode(fields)
    assert len(runs) == 1
    assert len(set(counts)) > 1
    np.testing.assert_array_equal(fields.kept, before)
    np.testing.assert_array_equal(again.labels, usual.labels)
    np.testing.assert_array_equal(usual.labels, cellrt.segment(image, diameter=16).labels)
    assert exact.record["options"]["mode"] == "exact"
    assert cellrt.evaluate(exact.labels, usual.labels).mean_dice > 0.95


def test_the_record_has_the_parameters_that_were_used(image):
    cells = cellrt.Segmenter("nuclei", decoder_parameters={"min_probability": 0.5})
    fields = cells.predict(image, diameter=16)
    record = cells.decode(fields, {"foreground_threshold": 0.31}).record
    parameters = record["decoder"]["parameters"]
    assert (parameters["foreground_threshold"], parameters["min_probability"]) == (0.31, 0.5)
    json.dumps(record)
    with pytest.raises(UsageError, match="foreground_treshold"):
        cells.decode(fields, {"foreground_treshold": 0.3})


def test_a_loaded_model_is_taken_as_it_is(image):
    model = cellrt.load_model("nuclei")
    assert cellrt.segment(image, model, diameter=16).record["model"]["sha256"] == model.sha256


def test_what_a_user_should_know_is_a_python_warning():
    with pytest.warns(CellrtWarning, match="constant") as caught:
        result = cellrt.segment(np.zeros((8, 32, 32), np.uint8), diameter=16)
    assert any("constant" in text for text in result.warnings)
    assert {Path(warning.filename) for warning in caught} == {Path(__file__)}


def test_a_clean_run_warns_of_nothing(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cellrt.segment(image, diameter=16, anisotropy=1)


def test_what_is_doubtful_beforehand_is_said_before_the_network_runs_and_once(image):
    class Told:
        def __init__(self):
            self.events = []

        def stage(self, name, total, unit):
            self.events.append(f"stage {name}")

        def advance(self, done):
            pass

        def note(self, text, *, warning=False):
            if warning:
                self.events.append(text)

    told = Told()
    with pytest.warns(cellrt.CellrtWarning):
        result = cellrt.segment(image, progress=told)
    said = [n for n, text in enumerate(told.events) if "diameter was estimated" in text]
    assert len(said) == 1
    assert said[0] < told.events.index("stage network")
    # Each once; in Python's words in the result.
    assert len([t for t in told.events if not t.startswith("stage")]) == len(result.warnings)


def test_progress_is_shown_on_standard_error(image, capsys):
    cellrt.segment(image, diameter=16, progress=True)
    shown = capsys.readouterr()
    assert "Running the network" in shown.err
    assert not shown.out


def test_results_are_saved_all_together(image, tmp_path):
    result = cellrt.segment(image, diameter=16)
    paths = result.save(tmp_path / "out" / "a.labels.tif")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.labels.tif",
        "a.cells.csv",
        "a.preview.png",
        "a.run.json",
    }
    np.testing.assert_array_equal(tifffile.imread(paths["labels"]), result.labels)
    with pytest.raises(InputError, match="exist"):
        result.save(tmp_path / "out" / "a.labels.tif")
    result.save(tmp_path / "out" / "a.labels.tif", preview=False, overwrite=True)
    with pytest.raises(UsageError, match="no file name"):
        result.save()


def test_a_file_is_saved_beside_itself(image, tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", image)
    result = cellrt.segment(tmp_path / "b.tif", diameter=16)
    assert result.save()["cells"] == tmp_path / "b.cells.csv"


def test_the_table_becomes_a_dataframe(image):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = cellrt.segment(image, diameter=16).table
    frame = table.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(table.columns)
    assert len(frame) == len(table)


def test_a_chosen_intensity_is_used_and_recorded(image):
    low, high = np.percentile(image, [5, 99])
    result = cellrt.segment(image, diameter=16, intensity=(low, high))
    found = result.record["intensity"]
    assert found["rule"] == "chosen by the user"
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert len(result.table)


@pytest.mark.parametrize("beyond", [False, True])
def test_an_intensity_beside_all_grey_values_is_a_warning(image, beyond):
    low, high = float(image.min()), float(image.max())
    chosen = (high + 10, high + 500) if beyond else (low - 500, low - 10)
    with pytest.warns(CellrtWarning, match="all beside intensity"):
        result = cellrt.segment(image, diameter=16, intensity=chosen)
    assert any("all beside intensity" in text for text in result.warnings)


@pytest.mark.parametrize("intensity", [(5, 5), (9, 2), (np.nan, 1), (0, np.inf)])
def test_an_intensity_that_is_no_range_is_refused(image, intensity):
    with pytest.raises(UsageError, match="intensity"):
        cellrt.segment(image, diameter=16, intensity=intensity)


def test_two_threads_share_a_segmenter(image):
    from concurrent.futures import ThreadPoolExecutor

    cells = cellrt.Segmenter("nuclei")
    expected = cells(image, diameter=16).labels
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cells(image, diameter=16).labels, range(8)))
    for labels in found:
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    "known",
    [
        {"diameter": np.float32(16)},
        {"diameter": 16, "intensity": np.array([100, 400])},
        {"diameter": np.int64(16), "anisotropy": np.float32(1)},
    ],
)
def test_numbers_of_numpy_can_be_written(image, known, tmp_path):
    result = cellrt.segment(image, halo=np.int64(8), tile=np.array([40, 64, 64]), **known)
    result.save(tmp_path / "a.tif", preview=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"diameter": "a"},
        {"intensity": 5},
        {"intensity": (1, 2, 3)},
        {"tile": "abc"},
        {"tile": (8.5, 8, 8)},
        {"halo": -5},
        {"halo": 1.5},
        {"decoder_parameters": [1]},
    ],
)
def test_options_that_are_no_numbers_are_refused_by_name(image, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        cellrt.segment(image, **wrong)


def test_results_of_two_arrays_in_a_file_do_not_collide(image, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["raw"] = image
        file["other"] = image
    cells = cellrt.Segmenter("nuclei")
    for name in ("raw", "other"):
        paths = cells(f"{tmp_path / 'b.h5'}:{name}", diameter=16).save(preview=False)
        assert paths["labels"].name == f"b.{name}.labels.tif"


def test_the_record_of_fields_decoded_again_has_all_stages(image):
    cells = cellrt.Segmenter("nuclei")
    seconds = cells.decode(cells.predict(image, diameter=16)).record["seconds"]
    assert {"read", "network", "cells", "measure"} <= set(seconds)


@pytest.mark.parametrize("offset", [4_000_000_000, 2**31])
def test_a_large_offset_gives_the_same_cells(image, offset):
    usual = cellrt.segment(image, diameter=16, anisotropy=1)
    moved = cellrt.segment(image.astype(np.uint32) + np.uint32(offset), diameter=16, anisotropy=1)
    assert cellrt.evaluate(moved.labels, usual.labels).mean_dice > 0.97
    assert not moved.warnings


@pytest.mark.parametrize("factor", [1e33, 1e300, 1e-40])
def test_grey_values_beyond_single_precision_are_named(factor):
    image = np.random.default_rng(0).uniform(0, 1000, (4, 16, 16)) * factor
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"grey values reach .* single precision; scale them"):
            cellrt.segment(image, diameter=16)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float64])
def test_a_large_offset_changes_no_cell_and_is_no_constant_image(dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (8, 24, 24))
    image[2:6, 6:18, 6:18] += 800
    plain, lifted = (
        cellrt.segment(image.astype(dtype) + dtype(offset), diameter=16) for offset in (0, 4e9)
    )
    assert len(lifted.table) == len(plain.table)
    assert not [text for text in lifted.warnings if "constant" in text]
    low, high = (lifted.record["intensity"][name] for name in ("low", "high"))
    assert 0 <= low - 4e9 < high - 4e9 < 1100
    assert f"{low:.0f}"[:9] in lifted.record["intensity"]["line"]


def test_constant_is_said_of_constant_images_only():
    constant = cellrt.segment(np.full((4, 16, 16), 7, np.uint8), diameter=16, anisotropy=1)
    assert "constant (every voxel is 7)" in constant.warnings[0]
    nearly = np.full((4, 16, 16), 1000, np.float32)
    nearly[2, 3, 4] = 1000.001
    for model in ("nuclei", "membranes", "membranes-3dcellseg"):
        found = cellrt.segment(nearly, model, diameter=16, anisotropy=1)
        (text,) = found.warnings
        assert text.startswith("no cells were found; looked for were cells of 16 pixels")
        assert found.record["intensity"]["low"] == 1000
    local = cellrt.load_model("nuclei")
    model = replace(local, card=replace(local.card, normalisation=Normalisation()))
    found = cellrt.segment(nearly, model, diameter=16, anisotropy=1)
    assert not [text for text in found.warnings if "constant" in text]
    assert "contrast" in found.warnings[0]
    assert "intensity sets" in found.warnings[0]


@pytest.mark.parametrize("ending", ["array", ".tif", "z.tif", ".npy", ".npz", ".h5", ".zarr"])
def test_a_result_can_be_pickled_wherever_its_image_lies(tmp_path, ending):
    image = np.random.default_rng(0).integers(0, 99, (4, 16, 16)).astype(np.uint16)
    path = tmp_path / f"a{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, image, imagej=True, metadata={"axes": "ZYX"})
    elif ending == "z.tif":
        tifffile.imwrite(path, image, compression="zlib", metadata={"axes": "ZYX"})
    elif ending == ".npy":
        np.save(path, image)
    elif ending == ".npz":
        np.savez(path, raw=image)
    elif ending == ".h5":
        h5py = pytest.importorskip("h5py", reason="h5py is an extra")
        with h5py.File(path, "w") as file:
            file["raw"] = image
    elif ending == ".zarr":
        zarr = pytest.importorskip("zarr", reason="zarr is an extra")
        zarr.save_array(str(path), image)
    result = cellrt.segment(image if ending == "array" else path, diameter=16)
    copy = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copy.volume.image[:], image)
    np.testing.assert_array_equal(copy.labels, result.labels)
    assert copy.record == result.record
    assert copy.volume.path == result.volume.path
    assert copy.save(tmp_path / "out.tif")["cells"].exists()


def test_a_job_that_runs_twice_has_each_warning_once(image, monkeypatch):
    from cellrt.runtime.progress import Silent, StageClock
    from cellrt.runtime.run import run

    broken = image.copy()
    broken[10] = 0  # a slice that was lost
    cells = cellrt.Segmenter("nuclei")
    job = cells.prepare(broken)
    # As where a reader and a look at the image find the same.
    job = replace(job, warnings=(*job.warnings, *job.warnings, "a", "a"))
    records = [run(job, StageClock(Silent())).record for _ in range(2)]
    fields = cells.predict(job)
    records += [cells.decode(fields).record for _ in range(2)]
    for record in records:
        assert "a" in record["warnings"]
        assert len(set(record["warnings"])) == len(record["warnings"])
        assert record["warnings"] == records[0]["warnings"]


def test_the_record_says_what_limits_threads_and_memory(image, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    record = cellrt.segment(image, diameter=16).record
    assert record["threads"]["count"] == 1
    assert record["memory_limit"]["bytes"] > 0
    assert record["memory_limit"]["source"]


def test_fields_can_be_kept_in_a_file_and_decoded_elsewhere(image):
    cells = cellrt.Segmenter("nuclei")
    fields = cells.predict(image, diameter=16)
    kept = pickle.loads(pickle.dumps(fields))
    assert np.array_equal(cells.decode(kept).labels, cells.decode(fields).labels)
    other = pickle.loads(pickle.dumps(cells))
    assert np.array_equal(other.decode(kept).labels, cells.decode(fields).labels)
    # What was kept has no session; it loads its own where one is needed.
    again = other.predict(pickle.loads(pickle.dumps(fields.job)))
    assert np.array_equal(again.kept, fields.kept)


@pytest.mark.parametrize("wrong", [None, "a.tif", np.zeros((8, 32, 32)), {"step": 1}])
def test_what_is_no_fields_is_not_decoded(wrong):
    with pytest.raises(UsageError, match="expected the fields that predict returns") as caught:
        cellrt.Segmenter("nuclei").decode(wrong)
    assert "\n" not in str(caught.value)


def test_fields_are_no_image_and_parameters_no_list():
    cells = cellrt.Segmenter("nuclei")
    fields = cells.predict(np.zeros((8, 32, 32), np.uint8))
    with pytest.raises(UsageError, match="decode takes them"):
        cells.predict(fields)
    with pytest.raises(UsageError, match="expected values by name"):
        cells.decode(fields, [0.5])


@pytest.mark.parametrize(
    "known",
    [
        {"channel": True},
        {"channel": np.True_},
        {"channel": 1.5},
        {"time": True},
        {"time": "1"},
        {"time": 1.0},
        {"series": True},
        {"series": 1.0},
        {"diameter": True},
        {"intensity": (False, True)},
        {"voxel_size": (True, True, True)},
    ],
)
def test_what_python_takes_for_a_number_is_refused(tmp_path, known):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 32, 32), np.uint8))
    with pytest.raises((UsageError, InputError), match="expected"):
        cellrt.segment(tmp_path / "a.tif", **known)


def test_the_same_of_numbers_that_are_given_once_for_all():
    for known in ({"halo": True}, {"min_size": True}, {"tile": (True, 8, 8)}):
        with pytest.raises(UsageError, match="expected"):
            cellrt.Segmenter("nuclei", **known)
