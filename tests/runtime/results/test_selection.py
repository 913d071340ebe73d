"""Cells that are wanted stay; the others leave labels and table alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.errors import UsageError
from cellrt.runtime.job import Options
from cellrt.runtime.results.selection import select
from cellrt.runtime.results.table import measure


def cells(sizes):
    """Bars of some lengths, and their table with a confidence that falls from one to the next."""
    labels = np.zeros((1, 2 * len(sizes) + 1, max(sizes, default=0) + 1), np.int32)
    for k, size in enumerate(sizes):
        labels[0, 2 * k + 1, :size] = k + 1
    table = measure(labels)
    return labels, table.with_columns({"confidence": np.linspace(1, 0, len(sizes))})


def test_each_demand_is_counted_and_what_stays_is_numbered_anew():
    labels, table = cells([2, 5, 9, 5])
    before = labels.copy()
    kept, left_out = select(labels, table, min_confidence=0.3, min_size=3, max_size=8)
    assert left_out == {"min_confidence": 1, "min_size": 1, "max_size": 1}
    np.testing.assert_array_equal(labels, before == 2)
    assert kept["id"].tolist() == [1]
    assert kept["area_voxels"].tolist() == [5]


@given(
    sizes=st.lists(st.integers(1, 9), max_size=6),
    least=st.none() | st.integers(0, 10),
    most=st.integers(10, 12),
)
def test_labels_and_table_always_agree(sizes, least, most):
    labels, table = cells(sizes)
    kept, _ = select(labels, table, min_size=least, max_size=most)
    wanted = [s for s in sizes if s >= (least or 0)]
    assert kept["area_voxels"].tolist() == wanted
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], wanted)


@pytest.mark.parametrize(
    ("demand", "word"),
    [
        ({"min_confidence": 1.1}, "min_confidence"),
        ({"min_confidence": float("nan")}, "min_confidence"),
        ({"min_size": -1}, "min_size"),
        ({"min_size": 1.5}, "whole number"),
        ({"max_size": float("inf")}, "max_size"),
        ({"min_size": 9, "max_size": 8}, "no cell could stay"),
    ],
)
def test_demands_that_mean_nothing_are_refused(demand, word):
    with pytest.raises(UsageError, match=word):
        Options(**demand)


def test_cells_that_are_larger_than_the_image_are_refused_and_options_without_effect_told():
    with pytest.raises(UsageError, match=r"1,001 and the image has 1,000 voxels"):
        Options(min_size=1001).against((10, 10, 10))
    asked = Options(min_size=1000, anisotropy=2, slices=True, stitch=0.25)
    assert asked.against((10, 10, 10)) == []
    told = asked.against((1, 40, 40))
    assert [text.partition(" changes nothing")[0] for text in told] == ["--anisotropy", "--stitch"]
