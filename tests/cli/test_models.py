"""``cellrt models``: cards for people and for machines."""

from __future__ import annotations

import json

from cellrt.runtime.model.file import bundled_names


def test_every_bundled_model_is_listed_with_scores_and_data(cellrt):
    done = cellrt("models")
    assert done.code == 0, done.err
    for word in (
        "nuclei",
        "membranes",
        "trained on",
        "CC-BY",
        "nuclei  (fp32 2.8 MB, fp16 14.9 kB)",
    ):
        assert word in done.out


def test_json_is_the_card_itself(cellrt):
    cards = json.loads(cellrt("models", "--json").out)
    assert {card["name"] for card in cards} >= {"nuclei", "membranes"}
    one = json.loads(cellrt("models", "nuclei", "--json").out)
    assert one["name"] == "nuclei"
    assert one["files"] == {"fp32": "nuclei.onnx", "fp16": "nuclei.fp16.onnx"}
    assert one["schema_version"] == 1


def test_a_file_in_another_precision_is_no_model_of_its_own(cellrt):
    assert len(json.loads(cellrt("models", "--json").out)) == len(bundled_names())
    assert cellrt("models", "nuclei.fp16").code == 3


def test_one_model_in_full_shows_hash_recipe_and_sources(cellrt):
    done = cellrt("models", "nuclei")
    assert done.code == 0, done.err
    for word in ("sha256", "recipe", "decoder flows", "BBBC050"):
        assert word in done.out


def test_an_unknown_model_is_an_input_error(cellrt):
    done = cellrt("models", "unheard-of")
    assert done.code == 3
    assert "nuclei" in done.err
