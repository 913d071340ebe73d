"""Overlap tables count exactly, whatever the type and the ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cellrt.errors import InputError
from cellrt.evaluation import overlap, overlap_table


def as_counts(table):
    """Pairs of labels -> voxels."""
    return {
        (int(table.prediction_ids[p]), int(table.truth_ids[t])): int(n)
        for p, t, n in zip(table.pair_prediction, table.pair_truth, table.pair_voxels, strict=True)
    }


def counted_one_by_one(prediction, truth):
    counts = {}
    for pair in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@st.composite
def label_pairs(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    labels = arrays(np.int64, shape, elements=st.integers(0, 4))
    return draw(labels), draw(labels)


@given(label_pairs())
def test_counts_equal_counting_voxel_by_voxel(pair):
    prediction, truth = pair
    table = overlap_table(prediction, truth)
    assert as_counts(table) == counted_one_by_one(prediction, truth)
    assert table.voxels == prediction.size
    ids, sizes = np.unique(prediction, return_counts=True)
    assert table.prediction_ids.tolist() == ids.tolist()
    assert table.prediction_voxels.tolist() == sizes.tolist()
    assert as_counts(table.swapped()) == counted_one_by_one(truth, prediction)


@settings(max_examples=30)
@given(label_pairs())
def test_labelled_only_is_the_table_of_the_labelled_voxels(pair):
    prediction, truth = pair
    inside = overlap_table(prediction, truth).labelled_only()
    assert as_counts(inside) == counted_one_by_one(prediction[truth > 0], truth[truth > 0])


def test_pieces_add_up(monkeypatch):
    rng = np.random.default_rng(1)
    prediction, truth = rng.integers(0, 5, (2, 7, 6, 5))
    whole = as_counts(overlap_table(prediction, truth))
    monkeypatch.setattr(overlap, "_CHUNK_VOXELS", 60)
    assert as_counts(overlap_table(prediction, truth)) == whole


@pytest.mark.parametrize("dtype", [bool, "u1", "i1", "<u2", ">u2", "i4", "u4", "i8", "u8", "f4"])
def test_any_type_that_holds_labels(dtype):
    prediction = np.array([[0, 1, 1], [0, 0, 1]]).astype(dtype)
    truth = np.array([[0, 1, 0], [1, 1, 1]], np.int32)
    assert as_counts(overlap_table(prediction, truth)) == {
        (0, 0): 1,
        (0, 1): 2,
        (1, 0): 1,
        (1, 1): 2,
    }


def test_ids_beyond_32_and_63_bits_stay_apart():
    big = np.array([0, 2**32 + 1, 1, 2**64 - 1, 2**63], np.uint64)
    table = overlap_table(big, np.array([0, 1, 2**40, 2**40, 2**40]))
    assert as_counts(table) == {
        (0, 0): 1,
        (2**32 + 1, 1): 1,
        (1, 2**40): 1,
        (2**64 - 1, 2**40): 1,
        (2**63, 2**40): 1,
    }


def test_views_and_lists_count_like_arrays():
    grid = np.arange(24).reshape(2, 3, 4) % 5
    expected = as_counts(overlap_table(grid[:, ::-1, ::2].copy(), grid[:, :, :2].copy()))
    assert as_counts(overlap_table(grid[:, ::-1, ::2], grid[:, :, :2])) == expected
    lists = grid[:, ::-1, ::2].tolist(), grid[:, :, :2].tolist()
    assert as_counts(overlap_table(*lists)) == expected


def test_images_without_voxels():
    table = overlap_table(np.zeros((0, 4, 4), int), np.zeros((0, 4, 4), int))
    assert table.voxels == 0
    assert table.prediction_ids.size == 0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((2, 3), int), "shape"),
        (np.array([0, -1, 2]), "negative label -1"),
        (np.array([0.0, 0.5, 1.0]), "0.5"),
        (np.array([0.0, np.nan, 1.0]), "nan"),
        (np.array([0.0, np.inf, 1.0]), "inf"),
        (np.array([0.0, 2.0**60, 1.0]), "floating-point"),
        (np.array([0j, 1j, 1]), "complex"),
        (np.array(["a", "b", "c"]), "whole numbers"),
    ],
)
def test_what_is_no_label_image_is_refused(prediction, message):
    with pytest.raises(InputError, match=message):
        overlap_table(prediction, np.zeros(3, int))


def test_layers_count_whole_cells_wherever_they_lie():
    from cellrt.evaluation.overlap import layered_overlap_table
    from cellrt.simulation import simulate_worms

    truth = simulate_worms((128, 128), seed=2).layers
    assert len(truth) > 1
    shuffled = truth[::-1]
    table = layered_overlap_table(shuffled, truth)
    masks = {k: (truth == k).any(axis=0) for k in range(1, truth.max() + 1)}
    sizes = dict(zip(table.truth_ids.tolist(), table.truth_voxels.tolist(), strict=True))
    pairs = {
        (int(table.prediction_ids[i]), int(table.truth_ids[j])): int(n)
        for i, j, n in zip(table.pair_prediction, table.pair_truth, table.pair_voxels, strict=True)
    }
    for a, first in masks.items():
        assert sizes[a] == first.sum()
        for b, second in masks.items():
            assert pairs.get((a, b), 0) == (first & second).sum()
    assert pairs[0, 0] == (truth == 0).all(axis=0).sum()


def test_one_layer_is_an_ordinary_image():
    from dataclasses import fields

    from cellrt.evaluation.overlap import layered_overlap_table

    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 4, (2, 9, 10))
    layered, plain = (
        layered_overlap_table(prediction[None], truth[None]),
        overlap_table(prediction, truth),
    )
    for field in fields(plain):
        np.testing.assert_array_equal(getattr(layered, field.name), getattr(plain, field.name))
