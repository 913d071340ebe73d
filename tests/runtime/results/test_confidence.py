"""Confidence in cells and what is to be expected of a stack, from a decoder's evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.runtime.decoding.base import Evidence
from cellrt.runtime.model.card_parts import Confidence
from cellrt.runtime.results.confidence import judge, term
from cellrt.runtime.results.table import measure

FITTED = Confidence(
    cell={"constant": -1.0, "logit probability": 2.0, "log flow_error": -0.5},
    stack={"constant": 0, "logit mean_confidence": 1, "log missed": -0.5},  # as JSON has them
    data="made up",
)


def table_of(count):
    labels = np.zeros((2, 4, 2 * count + 1), np.int32)
    labels[:, :, 1::2] = np.arange(1, count + 1)
    return measure(labels, [labels])


def evidence(probability, flow_error, missed=0.1):
    cells = {"probability": probability, "flow_error": flow_error}
    return Evidence({k: np.concatenate([[0.3], v]) for k, v in cells.items()}, {"missed": missed})


def test_confidence_is_the_logistic_function_of_the_weighted_terms():
    table, quality = judge(table_of(2), evidence([0.5, 0.9], [0.09, 0.19]), FITTED)
    logits = [
        -1 + 2 * 0 - 0.5 * np.log(0.09 + 0.01),
        -1 + 2 * np.log(9) - 0.5 * np.log(0.19 + 0.01),
    ]
    np.testing.assert_allclose(table["confidence"], 1 / (1 + np.exp(-np.array(logits))))
    mean = table["confidence"].mean()
    odds = mean / (1 - mean) * np.exp(-0.5 * np.log(0.11))
    assert quality.expected_ap50 == pytest.approx(odds / (1 + odds))
    assert quality.record()["evidence"] == {
        "mean_confidence": pytest.approx(mean, abs=1e-5),
        "missed": 0.1,
    }


def test_columns_of_evidence_stand_before_those_of_channels():
    table, _ = judge(table_of(2), evidence([0.5, 0.9], [0.1, 0.2]), FITTED)
    names = list(table.columns)
    first = names.index("confidence")
    assert names[first - 1 : first + 4] == [
        "touches_border",
        "confidence",
        "probability",
        "flow_error",
        "mean_channel_1",
    ]
    np.testing.assert_array_equal(table["probability"], [0.5, 0.9])


def test_cells_that_are_gone_from_the_table_take_their_evidence_with_them():
    table = table_of(3).only(np.array([True, False, True]))
    table.columns["id"] = np.array([1, 3])
    judged, _ = judge(table, evidence([0.6, 0.7, 0.8], [0.1, 0.2, 0.3]), FITTED)
    np.testing.assert_array_equal(judged["probability"], [0.6, 0.8])


def test_without_a_fit_there_is_evidence_and_no_confidence():
    table, quality = judge(table_of(1), evidence([0.5], [0.1]), None)
    assert "confidence" not in table.columns
    assert "probability" in table.columns
    assert quality.record() == {"expected_ap50": None, "evidence": {"missed": 0.1}}


def test_nothing_is_expected_of_a_stack_without_cells():
    table, quality = judge(table_of(0), evidence([], []), FITTED)
    assert len(table) == 0
    assert quality.expected_ap50 is None


def test_columns_of_the_table_may_be_terms():
    fitted = Confidence({"constant": 0.0, "plain touches_border": -2.0}, {"constant": 0.0}, "")
    table, _ = judge(table_of(2), evidence([0.5, 0.9], [0.1, 0.2]), fitted)
    expected = 1 / (1 + np.exp(2.0 * table["touches_border"]))
    np.testing.assert_allclose(table["confidence"], expected)


@given(st.floats(0, 1))
def test_terms_are_finite_and_grow_with_what_they_are_of(value):
    for how in ("log", "logit"):
        low, high = (term(f"{how} x", {"x": np.array([v])})[0] for v in (value, value + 0.1))
        assert np.isfinite(low)
        assert low <= high


def test_small_cells_are_told_by_their_size_beside_the_median_cell():
    labels = np.zeros((2, 4, 12), np.int32)
    labels[:, :, :4], labels[:, :, 4:8], labels[0, :2, 8:9] = 1, 2, 3
    fitted = Confidence(
        cell={"constant": 0.0, "log relative_size": 1.0},
        stack={"constant": 0.0, "plain mean_confidence": 1.0},
        data="made up",
    )
    table, _ = judge(measure(labels, [labels]), evidence([0.9] * 3, [0.1] * 3), fitted)
    assert table["confidence"] == pytest.approx([0.5, 0.5, 0.0], abs=0.07)
    assert "relative_size" not in table.columns
