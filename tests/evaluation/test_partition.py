"""Partition scores: known values, scikit-image, scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellrt.evaluation import overlap_table
from cellrt.evaluation.partition import adapted_rand_error, variation_of_information

small = arrays(np.int64, (3, 4, 5), elements=st.integers(0, 4))


def test_one_cell_cut_into_equal_halves():
    table = overlap_table(np.array([1, 1, 2, 2]), np.array([3, 3, 3, 3]))
    assert variation_of_information(table) == (1.0, 0.0)
    rand = adapted_rand_error(table)
    # 2 of 6 pairs of voxels stay together.
    assert rand.precision == 1.0
    assert rand.recall == pytest.approx(2 / 6)
    assert rand.error == pytest.approx(0.5)


def test_two_equal_cells_joined():
    table = overlap_table(np.array([3, 3, 3, 3]), np.array([1, 1, 2, 2]))
    assert variation_of_information(table) == (0.0, 1.0)
    assert adapted_rand_error(table).precision == pytest.approx(2 / 6)
    assert adapted_rand_error(table).recall == 1.0


def test_the_rand_error_leaves_out_the_true_background():
    truth = np.array([0, 0, 0, 1, 1])
    quiet = overlap_table(np.array([0, 0, 0, 1, 1]), truth)
    noisy = overlap_table(np.array([5, 6, 6, 1, 1]), truth)
    assert adapted_rand_error(quiet) == adapted_rand_error(noisy) == (0.0, 1.0, 1.0)
    assert variation_of_information(noisy).split > 0


def test_no_pair_of_voxels_to_disagree_about():
    assert adapted_rand_error(overlap_table([0, 0, 0], [0, 0, 0])) == (0.0, 1.0, 1.0)
    assert adapted_rand_error(overlap_table([1, 2, 3], [4, 5, 6])) == (0.0, 1.0, 1.0)
    nothing = np.zeros(0, int)
    assert variation_of_information(overlap_table(nothing, nothing)) == (0.0, 0.0)


def test_cells_where_the_truth_has_none_are_all_wrong():
    assert adapted_rand_error(overlap_table([0, 0, 1], [0, 0, 0])) == (1.0, 0.0, 0.0)
    assert adapted_rand_error(overlap_table([1, 1, 1], [0, 0, 0])) == (1.0, 0.0, 0.0)


def test_a_prediction_without_cells_joins_all_true_ones_as_scikit_image_says():
    metrics = pytest.importorskip("skimage.metrics")
    for truth in ([1, 1, 2, 2], [1, 1, 1, 0], [1, 1, 2, 0], [1, 1, 1, 2]):
        nothing = np.zeros(4, int)
        error, precision, recall = metrics.adapted_rand_error(np.array(truth), nothing)
        rand = adapted_rand_error(overlap_table(nothing, truth))
        assert rand.error == pytest.approx(error)
        # scikit-image gives precision and recall in the other order.
        assert sorted(rand[1:]) == pytest.approx(sorted((precision, recall)))


def test_volumes_whose_pairs_exceed_64_bits():
    table = overlap_table([1, 2], [1, 1])
    huge = np.array([2**40, 2**40])
    object.__setattr__(table, "pair_voxels", huge)
    rand = adapted_rand_error(table)
    assert rand.recall == pytest.approx(0.5)
    assert rand.precision == 1.0


@given(small, small)
def test_agrees_with_scikit_image(prediction, truth):
    metrics = pytest.importorskip("skimage.metrics")
    table = overlap_table(prediction, truth)
    split, merge = metrics.variation_of_information(truth, prediction)
    assert variation_of_information(table) == pytest.approx((split, merge), abs=1e-9)
    inside = truth > 0
    pairs = sum(n * (n - 1) for n in np.unique(truth[inside], return_counts=True)[1])
    pairs_there = sum(n * (n - 1) for n in np.unique(prediction[inside], return_counts=True)[1])
    if pairs and pairs_there:
        error, by_truth, by_prediction = metrics.adapted_rand_error(truth, prediction)
        # scikit-image 0.26 returns recall where its documentation says precision.
        assert adapted_rand_error(table) == pytest.approx((error, by_prediction, by_truth))


@settings(max_examples=50)
@given(small, small)
def test_information_agrees_with_scikit_learn(prediction, truth):
    cluster = pytest.importorskip("sklearn.metrics.cluster", reason="scikit-learn not installed")
    split, merge = variation_of_information(overlap_table(prediction, truth))
    mutual = cluster.mutual_info_score(truth.ravel(), prediction.ravel()) / np.log(2)

    def entropy(labels):
        share = np.unique(labels, return_counts=True)[1] / labels.size
        return -(share * np.log2(share)).sum()

    assert split == pytest.approx(entropy(prediction) - mutual, abs=1e-9)
    assert merge == pytest.approx(entropy(truth) - mutual, abs=1e-9)


@settings(max_examples=50)
@given(small, small)
def test_pair_counts_agree_with_scikit_learn(prediction, truth):
    cluster = pytest.importorskip("sklearn.metrics.cluster", reason="scikit-learn not installed")
    inside = truth > 0
    rand = adapted_rand_error(overlap_table(prediction, truth))
    if inside.sum() < 2:
        invented = prediction.any() and not inside.any()
        assert rand == ((1.0, 0.0, 0.0) if invented else (0.0, 1.0, 1.0))
        return
    (_, joined_only), (apart_only, both) = cluster.pair_confusion_matrix(
        truth[inside], prediction[inside]
    )
    if both:
        assert rand.precision == pytest.approx(both / (both + joined_only))
        assert rand.recall == pytest.approx(both / (both + apart_only))


@given(small, small)
def test_bounds_and_symmetry(prediction, truth):
    table = overlap_table(prediction, truth)
    rand = adapted_rand_error(table)
    assert all(0 <= value <= 1 for value in rand)
    split, merge = variation_of_information(table)
    assert split >= 0
    assert merge >= 0
    assert variation_of_information(table.swapped()) == pytest.approx((merge, split))
