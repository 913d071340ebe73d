"""One-to-one matching: known cases, brute force, and other people's implementations."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellrt.evaluation import cell_overlaps, evaluate, match_cells, matching, overlap_table
from cellrt.evaluation.matching import score_matching


def row(prediction, truth, threshold, **options):
    return evaluate(prediction, truth, thresholds=[threshold], **options).matching[0]


def outcome(scores):
    return scores.true_positives, scores.false_positives, scores.false_negatives


def iou_matrix(prediction, truth):
    rows = [prediction == i for i in np.unique(prediction) if i]
    columns = [truth == i for i in np.unique(truth) if i]
    table = np.zeros((len(rows), len(columns)))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            table[i, j] = (a & b).sum() / (a | b).sum()
    return table


def best_by_trying_all(iou, threshold):
    """Most matches, then the highest sum of IoU, over all injective assignments."""
    if iou.shape[0] > iou.shape[1]:
        iou = iou.T
    best = (0, 0.0)
    for columns in permutations(range(iou.shape[1]), iou.shape[0]):
        values = iou[range(iou.shape[0]), columns]
        values = values[values >= threshold]
        best = max(best, (values.size, values.sum()))
    return best


def test_a_hit_a_miss_and_a_spurious_cell():
    truth = np.array([1] * 10 + [0] * 10 + [2] * 10)
    prediction = np.array([7] * 8 + [0] * 2 + [8] * 5 + [0] * 15)
    scores = row(prediction, truth, 0.5)
    assert outcome(scores) == (1, 1, 1)
    assert scores.precision == scores.recall == scores.f1 == 0.5
    assert scores.average_precision == pytest.approx(1 / 3)
    assert scores.mean_matched_iou == pytest.approx(0.8)
    assert scores.panoptic_quality == pytest.approx(0.8 / 2)
    # Precision 0.5 at the 51 recall levels 0, 0.01, ..., 0.5 of 101.
    assert scores.coco_average_precision == pytest.approx(0.5 * 51 / 101)


@pytest.mark.parametrize(("threshold", "hits"), [(0.6, 1), (0.65, 0), (0.55, 1)])
def test_a_threshold_is_reached_by_equality(threshold, hits):
    truth = np.array([1, 1, 1, 1, 0])
    prediction = np.array([0, 5, 5, 5, 5])
    assert row(prediction, truth, threshold).true_positives == hits


def test_thresholds_summed_up_with_rounding_errors_match_like_exact_ones():
    truth = np.array([1, 1, 1, 1, 0])
    prediction = np.array([0, 5, 5, 5, 5])
    scores = evaluate(prediction, truth, thresholds=np.arange(0.5, 1.0, 0.05))
    assert scores.at(0.6).true_positives == 1


def test_two_equal_halves_joined_give_one_match_at_one_half():
    truth = np.array([1, 1, 2, 2])
    scores = row(np.array([3, 3, 3, 3]), truth, 0.5)
    assert outcome(scores) == (1, 0, 1)


def test_more_matches_win_over_a_better_one():
    # Cell 1 fits both predictions; giving it the better one would leave cell 2 without any.
    truth = np.array([1] * 10 + [2] * 4)
    prediction = np.array([5] * 4 + [6] * 10)
    iou = iou_matrix(prediction, truth)
    assert iou[1, 0] > iou[0, 0] > 0.2
    assert iou[1, 1] > 0.2
    assert row(prediction, truth, 0.2).true_positives == 2


@given(
    arrays(np.int64, (4, 6), elements=st.integers(0, 5)),
    arrays(np.int64, (4, 6), elements=st.integers(0, 5)),
    st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.7]),
)
def test_matching_is_the_best_of_all_assignments(prediction, truth, threshold):
    overlaps = cell_overlaps(overlap_table(prediction, truth))
    matched = match_cells(overlaps, threshold)
    assert np.unique(overlaps.pair_prediction[matched]).size == matched.size
    assert np.unique(overlaps.pair_truth[matched]).size == matched.size
    assert (overlaps.iou[matched] >= threshold).all()
    count, total = best_by_trying_all(iou_matrix(prediction, truth), threshold)
    assert matched.size == count
    assert overlaps.iou[matched].sum() == pytest.approx(total)


@given(
    arrays(np.int64, (3, 4, 5), elements=st.integers(0, 4)),
    arrays(np.int64, (3, 4, 5), elements=st.integers(0, 4)),
)
def test_exchanging_the_images_exchanges_precision_and_recall(prediction, truth):
    forward, backward = evaluate(prediction, truth), evaluate(truth, prediction)
    for one, other in zip(forward.matching, backward.matching, strict=True):
        assert one.true_positives == other.true_positives
        assert one.false_positives == other.false_negatives
        assert (one.precision, one.recall) == (other.recall, other.precision)
        assert one.average_precision == other.average_precision
        assert one.f1 == other.f1
        assert one.panoptic_quality == pytest.approx(other.panoptic_quality)


@given(
    arrays(np.int64, (4, 6), elements=st.integers(0, 4)),
    arrays(np.int64, (4, 6), elements=st.integers(0, 4)),
)
def test_stricter_thresholds_never_score_higher(prediction, truth):
    rows = evaluate(prediction, truth, thresholds=[0.1, 0.3, 0.5, 0.7, 0.9, 1.0]).matching
    for loose, strict in pairwise(rows):
        assert loose.true_positives >= strict.true_positives
        assert loose.average_precision >= strict.average_precision
        assert loose.coco_average_precision >= strict.coco_average_precision


def test_no_more_than_the_unlabelled_predictions_are_forgiven():
    truth = np.array([1] * 6 + [0] * 14)
    prediction = np.array([4] * 6 + [5] * 4 + [6] * 4 + [0] * 6)
    prediction[5] = 6  # touches the true cell with one of its five voxels
    overlaps = cell_overlaps(overlap_table(prediction, truth))
    assert outcome(score_matching(overlaps, 0.5)) == (1, 2, 0)
    assert outcome(score_matching(overlaps, 0.5, ignore_unlabelled=True)) == (1, 0, 0)


def test_forgiving_does_not_clip_predictions():
    truth = np.array([1] * 6 + [0] * 10)
    prediction = np.array([4] * 11 + [0] * 5)
    strict = row(prediction, truth, 0.6, ignore_unlabelled=True)
    assert outcome(strict) == (0, 1, 1)  # IoU 6 / 11, and most of it lies on the cell


@settings(max_examples=50)
@given(
    arrays(np.int64, (6, 8), elements=st.integers(0, 9)),
    arrays(np.int64, (6, 8), elements=st.integers(0, 9)),
    st.sampled_from([0.02, 0.1, 0.3]),
)
def test_blocks_too_large_for_a_matrix_are_matched_as_well(prediction, truth, threshold):
    overlaps = cell_overlaps(overlap_table(prediction, truth))
    expected = match_cells(overlaps, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_DENSE_BLOCK", 0)
        sparse = match_cells(overlaps, threshold)
    assert np.unique(overlaps.pair_prediction[sparse]).size == sparse.size
    assert np.unique(overlaps.pair_truth[sparse]).size == sparse.size
    assert sparse.size == expected.size
    assert overlaps.iou[sparse].sum() == pytest.approx(overlaps.iou[expected].sum())


def test_large_blocks_of_low_overlaps_are_assigned():
    # A staircase: each cell overlaps two others by half, all in one connected block.
    cells = np.repeat(np.arange(1, 301), 4)
    shifted = np.roll(cells, 2)
    overlaps = cell_overlaps(overlap_table(shifted, cells))
    assert match_cells(overlaps, 0.3).size == 300


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.75])
def test_agrees_with_stardist(threshold):
    stardist = pytest.importorskip("stardist.matching", reason="stardist is not installed")
    rng = np.random.default_rng(7)
    truth = np.kron(rng.integers(0, 30, (8, 8, 8)), np.ones((3, 3, 3), int))
    prediction = np.where(rng.random(truth.shape) < 0.1, 0, np.roll(truth, 1, axis=2))
    theirs = stardist.matching(truth, prediction, thresh=threshold)
    ours = row(prediction, truth, threshold)
    assert outcome(ours) == (theirs.tp, theirs.fp, theirs.fn)
    assert ours.average_precision == pytest.approx(theirs.accuracy)
    assert ours.f1 == pytest.approx(theirs.f1)
    assert ours.panoptic_quality == pytest.approx(theirs.panoptic_quality)
