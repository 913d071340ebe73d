"""``cellrt segment`` with small models of shapes, whose output has half as many voxels an axis."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import tifffile

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.star import candidates
from cellrt.runtime.decoding.star.harmonics import degrees
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Output

pytest.importorskip("onnx", reason="onnx is in the train extra")

RADIUS = 6.0
HARMONICS = ("distance", *(f"c_{d}_{m}" for d in range(3) for m in range(-d, d + 1)))
RADII = ("probability", *(f"radius_{i:03d}" for i in range(36)))


def write_model(write_network, path, channels):
    """Write a network that takes the image for the map, and every cell for the same ball."""
    from onnx import helper

    weights = np.zeros((len(channels), 1, 1, 1, 1), np.float32)
    weights[0] = 1
    biases = np.full(len(channels), RADIUS, np.float32)
    if channels[0] == "distance":
        biases[1:] = np.where(degrees(2) == 0, RADIUS * math.sqrt(4 * math.pi), 0)
    biases[0] = 0
    nodes = [
        helper.make_node(
            "AveragePool", ["image"], ["half"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]
        ),
        helper.make_node("Conv", ["half", "weights", "biases"], ["fields"]),
    ]
    card = ModelCard(
        name="star",
        summary="Balls of one size.",
        target="nuclei",
        method="harmonicnet",
        decoder="star",
        decoder_parameters={"threshold": 0.4, "min_distance": 3.0},
        diameter_voxels=2 * RADIUS,
        voxel_size_um=0.5,
        outputs=(Output("fields", channels),),
        two_dimensional=True,
        multiple=8,
        output_stride=2,
        receptive_field_radius=1,
        halo=4,
        blend=4,
        tile=(24, 32, 32),
    )
    return write_network(path, card, nodes, {"weights": weights, "biases": biases})


def balls(shape, step=16, radius=RADIUS, squeeze=1):
    """Cones of brightness, and their numbers; `squeeze` voxels of z are one slice."""
    z, y, x = np.indices((shape[0] * squeeze, *shape[1:]))
    image, labels, count = np.zeros(z.shape, np.float32), np.zeros(z.shape, np.int32), 0
    for a in range(step // 2, z.shape[0], step):
        for b in range(step // 2, z.shape[1] - int(radius), step):
            for c in range(step // 2, z.shape[2] - int(radius), step):
                count += 1
                far = np.sqrt((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / radius
                labels[far <= 1] = count
                image = np.maximum(image, 1 - far)
    slices = image.reshape(shape[0], squeeze, *shape[1:]).mean(axis=1)
    return (200 * slices).astype(np.uint8), labels[squeeze // 2 :: squeeze]


@pytest.fixture(params=[HARMONICS, RADII], ids=["harmonics", "rays"])
def model(request, tmp_path, write_network):
    return write_model(write_network, tmp_path / "star.onnx", request.param)


def segment(cellrt, tmp_path, image, model, *words):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, image)
    done = cellrt("segment", path, "--model", model, "--overwrite", *words)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "stack.run.json").read_text(encoding="utf-8"))
    return tifffile.imread(tmp_path / "stack.labels.tif"), record


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engines_and_tiles_give_the_same_cells(cellrt, tmp_path, model, engine):
    image, truth = balls((33, 50, 65))
    words = ("--diameter", 2 * RADIUS, "--engine", engine)
    labels, record = segment(cellrt, tmp_path, image, model, *words)
    assert record["cells"] == truth.max()
    assert record["decoder"]["name"] == "star"
    scores = evaluate(labels, truth)
    assert scores.mean_dice > 0.8  # of balls with 36 corners, whose volume is smaller
    tiled, _ = segment(cellrt, tmp_path, image, model, *words, "--tile", 24, 32, 40)
    assert np.count_nonzero(tiled != labels) <= 0.001 * labels.size


@pytest.mark.parametrize("fit", ["false", "true"])
def test_thick_slices_are_drawn_on_their_own_grid(cellrt, tmp_path, model, fit):
    image, truth = balls((16, 48, 48), squeeze=2)
    labels, record = segment(
        cellrt, tmp_path, image, model,
        "--voxel-size", 1.0, 0.5, 0.5, "--diameter", 2 * RADIUS, "--param", f"fit={fit}",
    )  # fmt: skip
    assert record["scale"]["model_grid_zyx"] == [32, 48, 48]
    assert record["cells"] == truth.max()
    assert evaluate(labels, truth).mean_dice > 0.8
    with (tmp_path / "stack.cells.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["probability"]) > 0.4
    powers = [name for name in rows[0] if name.startswith("power_")]
    if model.read_bytes().count(b"c_1_0"):
        assert powers == ["power_0_um2", "power_1_um2", "power_2_um2"]
        mean = math.sqrt(float(rows[0]["power_0_um2"]) / (4 * math.pi))
        assert mean == pytest.approx(0.5 * RADIUS, rel=0.01)
        assert float(rows[0]["power_2_um2"]) == pytest.approx(0, abs=1e-6)
    else:
        assert not powers


def test_stacks_of_any_number_of_slices_are_segmented(cellrt, tmp_path, model):
    image, truth = balls((16, 48, 48))
    for count, axes in ((1, "YX"), (2, "ZYX"), (3, "ZYX")):
        chosen = slice(8 - count // 2, 8 - count // 2 + count)
        shown = image[8] if count == 1 else image[chosen]
        labels, record = segment(cellrt, tmp_path, shown, model, "--diameter", 12, "--axes", axes)
        assert record["cells"] == truth.max()
        assert evaluate(labels.reshape(truth[chosen].shape), truth[chosen]).mean_dice > 0.8


def test_the_cell_size_is_searched_for(cellrt, tmp_path, model):
    image, truth = balls((40, 72, 72), step=18, radius=7.5)
    labels, record = segment(cellrt, tmp_path, image, model)
    # A network that draws the same ball whatever it sees leaves the search to its steps of 1.5.
    assert record["scale"]["diameter_pixels"] == pytest.approx(15, rel=0.2)
    assert evaluate(labels, truth).mean_dice > 0.6


def test_cells_that_are_seen_on_a_coarser_grid_are_drawn_on_the_images_own(cellrt, tmp_path, model):
    image, truth = balls((36, 60, 60), step=24, radius=9)
    labels, record = segment(cellrt, tmp_path, image, model, "--diameter", 18)
    assert record["scale"]["model_grid_zyx"] == [24, 40, 40]
    assert labels.shape == truth.shape
    assert evaluate(labels, truth).mean_dice > 0.8


def test_shapes_left_out_for_want_of_room_are_a_warning(
    cellrt, tmp_path, monkeypatch, write_network
):
    monkeypatch.setattr(candidates, "_LEAST_ROOM", 200 * 36 * 4)
    monkeypatch.setattr(candidates, "_ROOM_PER_VOXEL", 0)
    image, _ = balls((33, 50, 65))
    model = write_model(write_network, tmp_path / "star.onnx", RADII)
    tifffile.imwrite(tmp_path / "stack.tif", image)
    done = cellrt("segment", tmp_path / "stack.tif", "--model", model, "--diameter", 2 * RADIUS)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "stack.run.json").read_text(encoding="utf-8"))
    (warning,) = [text for text in record["warnings"] if "were left out" in text]
    assert "cells may be missing; cut the stack into blocks" in warning
    assert " ".join(warning.split()) in " ".join(done.err.split())
    assert record["decoder"]["device"]
