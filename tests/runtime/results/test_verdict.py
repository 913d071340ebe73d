"""The warning about cells of which few may be right names what is wrong with the image."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

import cellrt
from cellrt.runtime.grid.mended_image import as_it_is
from cellrt.runtime.model.card_parts import Confidence
from cellrt.runtime.results.confidence import Quality
from cellrt.runtime.results.segmentation import Segmentation
from cellrt.runtime.results.table import CellTable, measure
from cellrt.runtime.results.verdict import DOUBTFUL, doubts, likely_right, nothing_found
from cellrt.simulation import simulate_nuclei

DIAMETER = 16.0
NEVER_SURE = Confidence({"constant": -9.0}, {"constant": -9.0}, "made up")


@pytest.fixture(scope="module")
def stack():
    return simulate_nuclei((40, 80, 80), diameter_voxels=DIAMETER, seed=4)


def job(image, *, saturated=0.0, diameter=DIAMETER, intensity=None, certain=True, bright=None):
    """What a verdict asks of a job."""
    card = cellrt.load_model("nuclei").card
    low, high = np.percentile(image, [10, 99])
    return SimpleNamespace(
        image=as_it_is(image),
        volume=SimpleNamespace(full_voxel_size_um=None, shape=image.shape, segmented_channel=0),
        findings=SimpleNamespace(saturated=saturated, low=low, high=bright or high),
        options=SimpleNamespace(intensity=intensity),
        scale=SimpleNamespace(
            diameter_pixels=diameter,
            diameter_origin="given by the user" if certain else "estimated",
            spacing=(1.0, 1.0, 1.0),
            certain=certain,
            remedy="give --diameter",
        ),
        network=SimpleNamespace(model=SimpleNamespace(card=card)),
    )


def with_spots(image, bright):
    dirty = image.copy()
    for z, y, x in [(5, 10, 60), (20, 40, 20), (33, 70, 70)]:
        dirty[z : z + 3, y : y + 7, x : x + 7] = bright
    return dirty


def test_a_range_is_proposed_that_leaves_spots_out(stack):
    image = with_spots(stack.image.astype(np.float32), 30_000)
    (text,) = verdict(stack, image, bright=30_000)
    low, high = map(float, re.search(r"--intensity (\S+) (\S+)$", text).groups())
    assert low == pytest.approx(np.percentile(stack.image, 10), rel=0.1)
    assert high == pytest.approx(np.percentile(stack.image, 99), rel=0.2)


def test_a_proposed_range_has_the_digits_of_a_large_offset(stack):
    image = with_spots(stack.image.astype(np.float64), 30_000) + 1e6
    (text,) = verdict(stack, image, bright=1e6 + 30_000)
    low, high = map(float, re.search(r"--intensity (\S+) (\S+)$", text).groups())
    assert low == pytest.approx(1e6 + np.percentile(stack.image, 10), abs=2)
    assert high == pytest.approx(1e6 + np.percentile(stack.image, 99), abs=60)


def verdict(stack, image, expected=0.1, **known):
    grey = image if image.shape == stack.labels.shape else np.zeros_like(stack.labels)
    table = measure(stack.labels, intensity=[grey])
    return doubts(Quality({}, expected), table, job(image, **known))


@pytest.mark.parametrize(("spots", "times", "told"), [(8, 12, True), (8, 3, False), (2, 12, False)])
@pytest.mark.parametrize("expected", [0.8, None])
def test_bright_specks_among_cells_are_said_whatever_is_expected(spots, times, told, expected):
    labels, image = np.zeros((16, 64, 90), np.int32), np.full((16, 64, 90), 100, np.float32)
    for cell in range(10):
        y, x = 3 + 30 * (cell // 5), 2 + 17 * (cell % 5)
        labels[2:14, y : y + 14, x : x + 14] = cell + 1
    for speck in range(spots):
        labels[4:7, 26:31, 2 + 10 * speck : 7 + 10 * speck] = 11 + speck
    image[labels > 0], image[labels > 10] = 300, 100 + times * 200
    stack = SimpleNamespace(labels=labels)
    texts = verdict(stack, image, expected=expected)
    assert len(texts) == told
    if told:
        assert texts[0].startswith("8 of 18 cells are 12 times as bright as the others")
        assert texts[0].endswith("--intensity 100 300")
        assert verdict(stack, image, expected=expected, intensity=(100, 300)) == []


def test_good_stacks_and_models_that_do_not_say_get_no_warning(stack):
    assert verdict(stack, stack.image, expected=DOUBTFUL) == []
    assert verdict(stack, stack.image, expected=None) == []


@pytest.mark.parametrize(
    ("change", "known", "word"),
    [
        (lambda image, rng: image, {"saturated": 0.2}, "saturated"),
        (lambda image, rng: image + rng.normal(0, 4 * image.std(), image.shape), {}, "noise"),
        (lambda image, rng: ndimage.gaussian_filter(image, DIAMETER / 2), {}, "no edges"),
        (
            lambda image, rng: image,
            {"diameter": 3 * DIAMETER},
            "times as large as they were taken for",
        ),
        (lambda image, rng: image.max() - image, {}, "if cells are dark, invert it"),
        (lambda image, rng: image, {"intensity": (0, 9)}, "leave --intensity out"),
        (lambda image, rng: image[20:23], {}, "3 slices show no cell as a whole"),
        (lambda image, rng: with_spots(image, 30_000), {"bright": 30_000}, "spots of dirt"),
        (lambda image, rng: image, {}, "do not look like the cells that the model nuclei knows"),
    ],
)
def test_the_warning_names_the_likely_reason(stack, change, known, word):
    image = change(stack.image.astype(np.float32), np.random.default_rng(0))
    (text,) = verdict(stack, image.astype(np.float32), **known)
    assert text.startswith("few of these cells may be right (expected average precision 0.10")
    assert word in text
    assert "\n" not in text


def test_the_warning_and_the_confidence_reach_the_result(stack):
    model = cellrt.load_model("nuclei")
    doubtful = replace(model, card=replace(model.card, confidence=NEVER_SURE))
    with pytest.warns(cellrt.CellrtWarning, match="few of these cells may be right"):
        result = cellrt.segment(stack.image, doubtful, diameter=DIAMETER, anisotropy=1.0)
    assert (result.table["confidence"] < 0.001).all()
    assert result.record["quality"]["expected_ap50"] == pytest.approx(0, abs=0.001)
    none = cellrt.segment(
        stack.image, doubtful, diameter=DIAMETER, anisotropy=1.0, min_confidence=0.5
    )
    assert len(none.table) == 0
    assert not none.labels.any()
    assert none.record["left_out"] == {"min_confidence": len(result.table)}


@pytest.mark.parametrize(
    ("confidence", "expected", "left_out", "words"),
    [
        ([0.9] * 10, 0.85, 0, "about 9 of them are likely right (expected .* 0.85)"),
        ([0.9] * 10, 0.4, 0, "about 9 of them .* 0.40"),  # half of the cells were missed
        ([0.2] * 11, 0.97, 0, "unclear"),
        ([0.1] * 30, 0.0, 0, "unclear"),
        ([0.95] * 3, 0.0, 0, "unclear"),
        ([0.01] * 30, 0.0, 0, "about 0 of them"),
        ([0.95] * 4, 0.2, 50, "about 4 of them are likely right$"),  # of all 54 cells
        ([0.9] * 10, None, 0, "this model does not know here"),
        ([], 0.5, 0, "^$"),
    ],
)
def test_the_last_line_does_not_contradict_itself(confidence, expected, left_out, words):
    record = {"quality": {"expected_ap50": expected}, "left_out": {"min_confidence": left_out}}
    table = CellTable({"id": np.arange(len(confidence)), "confidence": np.array(confidence)}, "um")
    line = likely_right(Segmentation(np.zeros((1, 1, 1), np.int32), table, record, None))
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), line), line
    if "unclear" in line:
        assert not re.search(r"\d", line)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "16 pixels (given by the user); check the size, or another --model"),
        ({"certain": False}, "16 pixels (estimated); give --diameter, or another --model"),
        ({"saturated": 0.2}, "(given by the user): the image is saturated"),
        ({"intensity": (0, 9)}, "leave --intensity out"),
    ],
)
def test_where_no_cells_are_found_the_warning_says_what_was_looked_for(stack, known, words):
    text = nothing_found(job(stack.image.astype(np.float32), **known))
    assert text.startswith("no cells were found; looked for were cells of ")
    assert words in text
