"""``cellrt segment --rois`` and ``--overlaps``, with a small embedding model made here."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tifffile

import cellrt as package
from cellrt.errors import UsageError
from cellrt.runtime.decoding.embedding.decoder import embedding_outputs
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Output

pytest.importorskip("onnx", reason="onnx is in the train extra")


@pytest.fixture
def model(tmp_path, write_network):
    """A network whose embedding is the image, and its foreground whatever is not black."""
    from onnx import helper

    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["fields"]),
    ]
    weights = {
        "weights": np.float32([3, 3]).reshape(2, 1, 1, 1, 1),
        "low": np.array(0, np.float32),
        "high": np.array(3.9, np.float32),
    }
    card = ModelCard(
        name="grey",
        summary="One grey level for each object.",
        target="nuclei",
        method="harmonic_embedding",
        decoder="embedding",
        decoder_parameters={"join_distance": 8.0},
        diameter_voxels=16.0,
        voxel_size_um=1.0,
        outputs=(Output("fields", embedding_outputs(1)),),
        two_dimensional=True,
        planar=True,
        multiple=8,
        receptive_field_radius=1,
        halo=0,
        blend=0,
        tile=(1, 64, 64),
    )
    return write_network(tmp_path / "grey.onnx", card, nodes, weights)


@pytest.fixture
def dish(tmp_path):
    """A bar along x, and one along y that lies on it."""
    image = np.zeros((48, 64), np.uint8)
    image[20:27, 10:54] = 120
    image[8:40, 30:35] = 240
    tifffile.imwrite(tmp_path / "dish.tif", image)
    return tmp_path / "dish.tif"


def segment(cellrt, dish, model, *options):
    return cellrt(
        *("segment", dish, "--model", model, "--diameter", 16, "--intensity", 0, 240),
        *("--no-preview", *options),
    )


def test_crossing_cells_keep_their_masks(cellrt, dish, model, tmp_path):
    roifile = pytest.importorskip("roifile")
    done = segment(cellrt, dish, model, "--overlaps", "--rois")
    assert done.code == 0, done.err
    assert "dish.overlaps.tif" in done.out
    assert "dish.rois.zip" in done.out
    labels = tifffile.imread(tmp_path / "dish.labels.tif")
    assert labels.max() == 2
    upper, lower = labels[10, 32], labels[23, 15]
    with tifffile.TiffFile(tmp_path / "dish.overlaps.tif") as file:
        assert file.series[0].axes == "CYX"
        layers = file.asarray()
    assert len(layers) == 2
    assert np.array_equal((layers == upper).any(axis=0), labels == upper)
    bar = np.zeros((48, 64), bool)
    bar[20:27, 10:54] = True
    whole = (layers == lower).any(axis=0)
    assert whole[bar].mean() > 0.95
    assert not (whole & ~bar).any()
    rois = {roi.name: roi for roi in roifile.roiread(tmp_path / "dish.rois.zip")}
    assert sorted(rois) == ["1", "2"]
    assert rois[str(upper)].coordinates().tolist() in (
        np.roll([[30, 8], [35, 8], [35, 40], [30, 40]], k, axis=0).tolist() for k in range(4)
    )
    assert not rois[str(lower)].composite
    # Without --overlaps a cell is what its label is, here in two parts.
    done = segment(cellrt, dish, model, "--rois", "-o", f"{tmp_path}/plain/")
    assert done.code == 0, done.err
    rois = {roi.name: roi for roi in roifile.roiread(tmp_path / "plain" / "dish.rois.zip")}
    assert rois[str(lower)].composite
    assert len(rois[str(lower)].coordinates(multi=True)) == 2
    assert not (tmp_path / "plain" / "dish.overlaps.tif").exists()


@pytest.mark.filterwarnings("ignore::cellrt.errors.CellrtWarning")
def test_overlaps_are_refused_where_they_mean_nothing(cellrt, dish, model, tmp_path):
    done = cellrt("segment", dish, "--model", "nuclei", "--overlaps")
    assert done.code == 2
    assert "the decoder flows" in done.err
    tifffile.imwrite(
        tmp_path / "movie.tif", np.zeros((3, 32, 32), np.uint8), photometric="minisblack"
    )
    for more in (("--axes", "ZYX"), ("--axes", "ZYX", "--dry-run")):
        done = segment(cellrt, tmp_path / "movie.tif", model, "--slices", "--overlaps", *more)
        assert done.code == 2
        assert "the image has 3" in done.err
    result = package.segment(np.zeros((32, 32), np.uint8), "nuclei", diameter=16)
    with pytest.raises(UsageError, match="overlaps cannot be asked for"):
        result.save(tmp_path / "x.tif", overlaps=True)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".onnx", ".tif", ".tif"]


def test_rois_without_roifile_are_refused_before_anything_is_read(cellrt, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    done = cellrt("segment", "missing.tif", "--model", model, "--rois")
    assert done.code == 2
    assert "pip install 'cellrt[rois]'" in done.err


def test_older_ones_stay_and_are_named(cellrt, dish, model, tmp_path):
    (tmp_path / "dish.overlaps.tif").write_text("mine")
    done = segment(cellrt, dish, model, "--overlaps")
    assert done.code == 3
    assert "exists already" in done.err
    done = segment(cellrt, dish, model)
    assert done.code == 0, done.err
    assert "dish.overlaps.tif is of an earlier run" in done.err
    record = json.loads((tmp_path / "dish.run.json").read_text(encoding="utf-8"))
    assert any("earlier run" in text for text in record["warnings"])
    assert (tmp_path / "dish.overlaps.tif").read_text(encoding="utf-8") == "mine"
    done = segment(cellrt, dish, model, "--overlaps", "--overwrite")
    assert done.code == 0, done.err
    assert "earlier run" not in done.err
    assert tifffile.imread(tmp_path / "dish.overlaps.tif").shape == (2, 48, 64)


@pytest.mark.filterwarnings("ignore::cellrt.errors.CellrtWarning")
def test_any_decoder_gives_rois_from_python(tmp_path):
    roifile = pytest.importorskip("roifile")
    y, x = np.indices((64, 64))
    image = (200 * (np.hypot(y % 32 - 16, x % 32 - 16) < 9) + 20).astype(np.uint8)
    result = package.segment(image, "nuclei", diameter=18)
    paths = result.save(tmp_path / "x.tif", rois=True, preview=False)
    assert paths["rois"] == tmp_path / "x.rois.zip"
    names = [int(roi.name) for roi in roifile.roiread(paths["rois"])]
    assert names == np.unique(result.labels)[1:].tolist()
    assert len(names) == len(result.table) == 4
