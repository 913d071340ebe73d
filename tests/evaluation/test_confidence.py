"""The fit of confidence finds what made the data, and its calibration is measured right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cellrt.errors import UsageError
from cellrt.evaluation.confidence import (
    JudgedStack,
    calibration_error,
    fit_confidence,
    judge_stack,
)
from cellrt.runtime.results.confidence import weighted
from cellrt.runtime.results.table import measure

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is an extra")


def made_up(rng, cells=400):
    """A stack whose cells are right with a probability that follows from their evidence."""
    known = {
        "probability": rng.uniform(0.5, 1, cells),
        "flow_error": rng.uniform(0.02, 0.6, cells),
        "touches_border": rng.integers(0, 2, cells).astype(float),
        "relative_size": rng.uniform(0.1, 1, cells),
    }
    truth = {"constant": -2.0, "logit probability": 0.5, "log flow_error": -1.5}
    p = 1 / (1 + np.exp(-weighted(known, truth, cells)))
    right = rng.random(cells) < p
    doubts = {"unsure": rng.uniform(0, 1), "missed": rng.uniform(0, 1), "flow_error": 0.1}
    return JudgedStack(known, right, doubts, ap50=right.mean() * (1 - doubts["missed"] / 2)), p


def test_the_fit_finds_the_weights_and_is_calibrated():
    rng = np.random.default_rng(1)
    stacks = [made_up(rng)[0] for _ in range(40)]
    found = fit_confidence("flows", stacks, "made up")
    assert found.cell["logit probability"] == pytest.approx(0.5, abs=0.1)
    assert found.cell["log flow_error"] == pytest.approx(-1.5, abs=0.1)
    assert found.cell["plain touches_border"] == pytest.approx(0, abs=0.1)
    assert set(found.stack) == {
        "constant",
        "plain mean_confidence",
        "log unsure",
        "log flow_error",
    }
    other, _ = made_up(rng, cells=20_000)
    logit = weighted(other.cells, found.cell, 20_000)
    assert calibration_error(1 / (1 + np.exp(-logit)), other.right) < 0.02


def test_the_calibration_error_of_hand_made_cells():
    # Two bins: two cells at 0.9 of which one is right, two at 0.1 of which none is.
    confidence = np.array([0.9, 0.9, 0.1, 0.1])
    right = np.array([True, False, False, False])
    assert calibration_error(confidence, right) == pytest.approx((0.4 * 2 + 0.1 * 2) / 4)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0.0
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0


def test_cells_are_right_where_they_match_one_to_one():
    @dataclass
    class Result:
        labels: object
        table: object
        record: object

    truth = np.zeros((1, 3, 20), np.int32)
    truth[:, :, :6], truth[:, :, 10:16] = 4, 9
    found = np.zeros_like(truth)
    found[:, :, :5], found[:, :, 10:12], found[:, :, 18:] = 1, 2, 3
    evidence = {"probability": np.array([0.9, 0.8, 0.7]), "flow_error": np.array([0.1, 0.2, 0.3])}
    record = {
        "decoder": {"name": "flows"},
        "quality": {"evidence": {"unsure": 0.5, "missed": 0.2, "flow_error": 0.1}},
    }
    judged = judge_stack(Result(found, measure(found).with_columns(evidence), record), truth)
    assert judged.right.tolist() == [True, False, False]
    assert judged.ap50 == pytest.approx(1 / 4)
    assert judged.cells["touches_border"].tolist() == [1, 1, 1]
    assert judged.cells["relative_size"].tolist() == [1, 1, 1]
    assert judged.volume == {"unsure": 0.5, "flow_error": 0.1}
    # Of sparse truth nobody knows whether there is a cell where none is labelled.
    segmented = Result(found, measure(found).with_columns(evidence), record)
    sparse = judge_stack(segmented, truth, ignore_unlabelled=True)
    assert sparse.right.tolist() == [True, False]
    assert sparse.cells["probability"].tolist() == [0.9, 0.8]
    assert sparse.ap50 == pytest.approx(1 / 3)


def test_what_cannot_be_fitted_is_refused():
    rng = np.random.default_rng(0)
    stack, _ = made_up(rng)
    with pytest.raises(UsageError, match="decoder toy"):
        fit_confidence("toy", [stack], "")
    with pytest.raises(UsageError, match="right cells"):
        fit_confidence("flows", [], "")
