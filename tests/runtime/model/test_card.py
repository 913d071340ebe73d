"""The model card: survives a round trip, refuses what it does not understand, by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cellrt.errors import InputError
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Golden, Guides, Output, Score, TrainingData
from cellrt.runtime.model.file import bundled_models, open_model

RECIPES = Path(__file__).parents[3] / "recipes"


def card(**changes):
    values = {
        "name": "test",
        "summary": "A card.",
        "target": "nuclei",
        "method": "cellpose3d",
        "decoder": "flows",
        "decoder_parameters": {"step": 4.0},
        "diameter_voxels": 16.0,
        "voxel_size_um": 0.5,
        "outputs": (Output("fields", ("flow_z", "flow_y", "flow_x", "foreground")),),
        "training_data": (TrainingData("d", "s", "CC0"),),
        "scores": (Score("d", "AP50", 0.9, seen=True),),
        "golden": Golden((8, 8, 8), "a", "b", (0.0, 1.0)),
    }
    return ModelCard(**{**values, **changes})


def test_round_trip_keeps_everything():
    assert ModelCard.from_json(card().to_json()) == card()
    guides = Guides(((0.01, -0.02), (0.0, 0.03), (0.01, 0.01)), (0.0, 1.0, 2.0), 0.5, 0.7, 0.3, 0.0)
    assert ModelCard.from_json(card(guides=guides).to_json()) == card(guides=guides)


GUIDES = {"margin": 0.5, "smallest_l1": 0.6, "smallest_l2": 0.2, "hinge_loss": 0.0}


def edited(**changes):
    raw = json.loads(card().to_json())
    raw.update(changes)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "schema version 99.*update cellrt"),
        ({"schema_version": None}, "schema version None"),
        ({"surprise": 1}, "unknown surprise"),
        ({"diameter_voxels": 0}, "diameter_voxels must be above 0"),
        ({"voxel_size_um": float("nan")}, "voxel_size_um"),
        ({"tile": [60, 64, 64]}, "multiples of 8"),
        ({"output_stride": 3}, "output_stride 3 must divide multiple 8"),
        ({"planar": True, "two_dimensional": True, "tile": [1, 60, 64]}, "8 along y and x"),
        ({"planar": True, "two_dimensional": False}, "two_dimensional"),
        ({"tile": [64, 64]}, "three edges"),
        ({"halo": -1}, "halo"),
        ({"outputs": []}, "outputs is empty"),
        ({"guides": {**GUIDES, "frequencies": [[0, 0]], "phases": [0]}}, "as many as the embedd"),
        (
            {"guides": {**GUIDES, "frequencies": 3 * [[0, None]], "phases": [0, 0, 0]}},
            "card is not valid",
        ),
        (
            {"guides": {**GUIDES, "margin": 0, "frequencies": 3 * [[0, 0]], "phases": [0, 0, 0]}},
            "guides.margin",
        ),
        (
            {"guides": {**GUIDES, "frequencies": 3 * [[0, float("nan")]], "phases": [0, 0, 0]}},
            "finite",
        ),
        ({"outputs": [{"name": "x"}]}, "channels"),
        ({"channels": 3}, "only 1 is supported"),
        ({"precision": "fp7"}, "precision 'fp7'"),
        ({"diameter_range": [1.2, 1.6]}, "enclose 1"),
        ({"normalisation": {"low_percentile": 99, "high_percentile": 1}}, "percentiles"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        ModelCard.from_json(edited(**changes), origin="m.onnx")


def test_a_missing_field_is_named():
    raw = json.loads(card().to_json())
    del raw["decoder"]
    with pytest.raises(InputError, match="lacks decoder"):
        ModelCard.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(InputError, match="model card"):
        ModelCard.from_json(text, origin="m.onnx")


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_cards_have_the_scores_that_were_last_measured(name):
    measured = json.loads((RECIPES / f"{name}.scores.json").read_text(encoding="utf-8"))
    assert [asdict(score) for score in open_model(name).card.scores] == measured
