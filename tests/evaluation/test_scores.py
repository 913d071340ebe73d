"""All scores together: known values, invariances, empty images, sparse truth, real labels."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellrt.errors import CellrtError, InputError, UsageError
from cellrt.evaluation import (
    DEFINITIONS,
    IOU_THRESHOLDS,
    Scores,
    ThresholdScores,
    best_matches,
    cell_overlaps,
    evaluate,
    overlap_table,
)

small = arrays(np.int64, (3, 4, 5), elements=st.integers(0, 4))

ERRORS = (
    "count_difference",
    "adapted_rand_error",
    "variation_of_information_split",
    "variation_of_information_merge",
)
COUNTS = ("ignore_unlabelled", "true_cells", "predicted_cells", "ignored_cells", "matching")
SHARES = tuple(field.name for field in fields(Scores) if field.name not in (*ERRORS, *COUNTS))
ROW_SHARES = tuple(
    field.name
    for field in fields(ThresholdScores)
    if field.name not in ("threshold", "true_positives", "false_positives", "false_negatives")
)


def close(one, other):
    """Equal but for the rounding of sums in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == (pytest.approx(other) if isinstance(one, float) else other)


def assert_perfect(scores):
    for name in SHARES:
        assert getattr(scores, name) == 1, name
    for name in ERRORS:
        assert getattr(scores, name) == 0, name
    for row in scores.matching:
        for name in ROW_SHARES:
            assert getattr(row, name) == 1, name


@pytest.fixture(scope="module")
def worked_example():
    """Cell 1 is found with Dice 0.8, cell 2 is cut in 6 + 4, cell 3 is missed, 14 is spurious."""
    truth = np.array([1] * 10 + [0] * 4 + [2] * 10 + [3] * 5 + [0] * 11)
    prediction = np.zeros(40, int)
    prediction[2:12] = 11
    prediction[14:20] = 12
    prediction[20:24] = 13
    prediction[32:38] = 14
    return prediction, truth


def test_cell_scores_of_the_worked_example(worked_example):
    scores = evaluate(*worked_example)
    dice = [16 / 20, 12 / 16, 0]
    jaccard = [8 / 12, 6 / 10, 0]
    assert scores.mean_dice == pytest.approx(np.mean(dice))
    assert scores.median_dice == pytest.approx(0.75)
    assert scores.mean_jaccard == pytest.approx(np.mean(jaccard))
    assert scores.dice_above_50 == scores.dice_above_70 == pytest.approx(2 / 3)
    assert scores.jaccard_above_50 == pytest.approx(2 / 3)
    assert scores.jaccard_above_70 == 0
    assert scores.seg == pytest.approx(np.mean(jaccard))
    assert (scores.true_cells, scores.predicted_cells, scores.count_difference) == (3, 4, 1)
    # Predictions: 0.8, 0.75, 8/14 and 0.
    assert scores.best_dice_prediction == pytest.approx((0.8 + 0.75 + 8 / 14 + 0) / 4)
    assert scores.best_dice_truth == pytest.approx(np.mean(dice))
    assert scores.symmetric_best_dice == pytest.approx(np.mean(dice))


def test_matching_scores_of_the_worked_example(worked_example):
    scores = evaluate(*worked_example)
    assert [row.true_positives for row in scores.matching] == [2, 2, 2, 1, 0, 0, 0, 0, 0, 0]
    ap = [2 / 5] * 3 + [1 / 6] + [0] * 6
    assert scores.mean_average_precision == pytest.approx(np.mean(ap))
    coco = [0.5 * 67 / 101] * 3 + [0.25 * 34 / 101] + [0] * 6
    assert scores.coco_average_precision == pytest.approx(np.mean(coco))
    assert scores.at(0.5).panoptic_quality == pytest.approx((8 / 12 + 0.6) / (2 + 1 + 0.5))


def test_scores_are_about_whole_cells_not_about_the_labelled_region():
    # A prediction that runs into the background pays for it.
    truth = np.array([1] * 4 + [0] * 4)
    scores = evaluate(np.ones(8, int), truth)
    assert scores.mean_jaccard == 0.5
    assert scores.mean_dice == pytest.approx(2 / 3)


def test_seg_needs_more_than_half_of_the_cell():
    truth = np.array([1, 1, 1, 1])
    assert evaluate(np.array([5, 5, 0, 0]), truth).seg == 0
    assert evaluate(np.array([5, 5, 5, 0]), truth).seg == 0.75
    assert evaluate(np.array([5, 5, 0, 0]), truth).mean_jaccard == 0.5


def test_shares_above_a_limit_exclude_the_limit():
    truth = np.array([1, 1, 1, 1])
    scores = evaluate(np.array([5, 5, 0, 0]), truth)
    assert scores.jaccard_above_50 == 0
    assert scores.dice_above_50 == 1


def test_each_true_cell_names_its_best_prediction(worked_example):
    prediction, truth = worked_example
    cells = best_matches(cell_overlaps(overlap_table(prediction, truth)))
    assert cells.truth_ids.tolist() == [1, 2, 3]
    assert cells.truth_voxels.tolist() == [10, 10, 5]
    assert cells.best_prediction_ids.tolist() == [11, 12, 0]
    assert cells.dice == pytest.approx([0.8, 0.75, 0])


def test_of_equal_matches_the_lowest_label_is_named():
    cells = best_matches(cell_overlaps(overlap_table([4, 4, 2, 2], [1, 1, 1, 1])))
    assert cells.best_prediction_ids.tolist() == [2]


@given(small)
def test_an_image_against_itself_is_perfect(labels):
    assert_perfect(evaluate(labels, labels))
    assert_perfect(evaluate(labels, labels, ignore_unlabelled=True))


@given(small, small, st.booleans())
def test_bounds(prediction, truth, ignore):
    scores = evaluate(prediction, truth, ignore_unlabelled=ignore)
    for name in SHARES:
        assert 0 <= getattr(scores, name) <= 1, name
    for row in scores.matching:
        for name in ROW_SHARES:
            assert 0 <= getattr(row, name) <= 1, name
    assert scores.mean_dice >= scores.mean_jaccard
    assert scores.mean_jaccard >= scores.seg
    assert scores.coco_average_precision <= 1


@given(small, small, st.permutations([1, 2, 3, 4]), st.booleans())
def test_names_of_labels_do_not_matter(prediction, truth, names, ignore):
    renamed = np.array([0, *names], np.uint64)[prediction] * np.uint64(2**33)
    expected = evaluate(prediction, truth, ignore_unlabelled=ignore).to_dict()
    assert close(evaluate(renamed, truth, ignore_unlabelled=ignore).to_dict(), expected)


@given(small, small)
def test_the_order_of_axes_and_voxels_does_not_matter(prediction, truth):
    expected = evaluate(prediction, truth).to_dict()
    assert close(evaluate(prediction.T, truth.T).to_dict(), expected)
    assert close(evaluate(prediction[::-1, :, ::-1], truth[::-1, :, ::-1]).to_dict(), expected)
    assert close(evaluate(prediction.ravel(), truth.ravel()).to_dict(), expected)


@given(small, small)
def test_scores_that_are_symmetric(prediction, truth):
    forward, backward = evaluate(prediction, truth), evaluate(truth, prediction)
    assert forward.symmetric_best_dice == pytest.approx(backward.symmetric_best_dice)
    assert forward.count_difference == backward.count_difference
    assert forward.mean_average_precision == backward.mean_average_precision
    assert forward.variation_of_information_split == pytest.approx(
        backward.variation_of_information_merge
    )


@given(small, small)
def test_best_dice_and_seg_by_brute_force(prediction, truth):
    scores = evaluate(prediction, truth)
    cells = [truth == i for i in np.unique(truth) if i]
    found = [prediction == i for i in np.unique(prediction) if i]
    if not cells:
        return
    dice = [max([2 * (c & f).sum() / (c.sum() + f.sum()) for f in found] or [0]) for c in cells]
    jaccard = [max([(c & f).sum() / (c | f).sum() for f in found] or [0]) for c in cells]
    seg = [
        max([(c & f).sum() / (c | f).sum() for f in found if (c & f).sum() > 0.5 * c.sum()] or [0])
        for c in cells
    ]
    assert scores.mean_dice == pytest.approx(np.mean(dice))
    assert scores.mean_jaccard == pytest.approx(np.mean(jaccard))
    assert scores.seg == pytest.approx(np.mean(seg))
    assert scores.jaccard_above_50 == pytest.approx(np.mean(np.array(jaccard) > 0.5))


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 4, 5), (6, 6), ()])
def test_two_images_without_cells_agree(shape):
    nothing = np.zeros(shape, np.uint16)
    assert_perfect(evaluate(nothing, nothing))


def test_cells_on_one_side_only_score_zero():
    cells, nothing = np.array([[1, 1], [0, 2]]), np.zeros((2, 2), int)
    missed, invented = evaluate(nothing, cells), evaluate(cells, nothing)
    for scores in (missed, invented):
        for name in ("mean_dice", "mean_jaccard", "seg", "symmetric_best_dice", "dice_above_50"):
            assert getattr(scores, name) == 0, name
        assert scores.count_difference == 2
        for row in scores.matching:
            assert row.precision == row.recall == row.f1 == row.average_precision == 0
            assert row.panoptic_quality == row.coco_average_precision == 0
    assert (invented.adapted_rand_error, invented.rand_precision, invented.rand_recall) == (1, 0, 0)
    assert 0 < missed.adapted_rand_error < 1
    assert missed.at(0.5).false_negatives == invented.at(0.5).false_positives == 2


def test_a_sparse_truth_without_any_label_says_nothing():
    scores = evaluate(np.array([[1, 1], [0, 2]]), np.zeros((2, 2), int), ignore_unlabelled=True)
    assert scores.ignored_cells == 2
    assert scores.adapted_rand_error == 0
    assert scores.count_difference == 0


def test_sparse_truth():
    truth = np.zeros((4, 10), int)
    truth[0, :5] = 1
    prediction = np.zeros((4, 10), int)
    prediction[0, :7] = 1  # covers the labelled cell and spills over
    prediction[2, :5] = 2  # a cell that nobody annotated
    strict = evaluate(prediction, truth)
    sparse = evaluate(prediction, truth, ignore_unlabelled=True)
    assert (strict.ignore_unlabelled, sparse.ignore_unlabelled) == (False, True)
    assert (strict.at(0.5).precision, sparse.at(0.5).precision) == (0.5, 1)
    assert (strict.ignored_cells, sparse.ignored_cells) == (0, 1)
    assert (strict.count_difference, sparse.count_difference) == (1, 0)
    assert sparse.mean_jaccard == strict.mean_jaccard == pytest.approx(5 / 7)
    assert sparse.symmetric_best_dice == pytest.approx(10 / 12)
    assert sparse.variation_of_information_split == 0
    assert strict.variation_of_information_split > 0


def test_the_dictionary_is_json_with_definitions(worked_example):
    result = evaluate(*worked_example, thresholds=[0.5, 0.75]).to_dict()
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again == result
    assert [row["threshold"] for row in again["matching"]] == [0.5, 0.75]
    assert "TP/(TP+FP+FN)" in again["definitions"]["average_precision"]
    for name in (*SHARES, *ERRORS, *ROW_SHARES, "ignore_unlabelled"):
        assert again["definitions"][name], name


def test_every_definition_belongs_to_a_score():
    names = {field.name for kind in (Scores, ThresholdScores) for field in fields(kind)}
    assert set(DEFINITIONS) <= names


def test_thresholds():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    scores = evaluate([1], [1], thresholds=[0.9, 0.3, 0.9])
    assert [row.threshold for row in scores.matching] == [0.3, 0.9]
    with pytest.raises(UsageError, match=r"only at 0\.3, 0\.9"):
        scores.at(0.5)


def test_the_coco_mean_does_not_depend_on_the_thresholds_asked_for(worked_example):
    full = evaluate(*worked_example)
    one = evaluate(*worked_example, thresholds=[0.2])
    assert one.coco_average_precision == full.coco_average_precision


@pytest.mark.parametrize("thresholds", [[], [0], [-0.5], [1.5], [float("nan")]])
def test_impossible_thresholds_are_refused(thresholds):
    with pytest.raises(UsageError, match="above 0"):
        evaluate([1], [1], thresholds=thresholds)


def test_unequal_shapes_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"\(2, 3\).*\(3, 2\)") as caught:
        evaluate(np.zeros((2, 3), int), np.zeros((3, 2), int))
    assert isinstance(caught.value, CellrtError)
    assert "\n" not in str(caught.value)


def test_inputs_are_left_alone(worked_example):
    prediction, truth = (image.copy() for image in worked_example)
    evaluate(prediction, truth, ignore_unlabelled=True)
    assert (prediction == worked_example[0]).all()
    assert (truth == worked_example[1]).all()


def test_a_real_pair_agrees_with_dense_counting():
    tifffile = pytest.importorskip("tifffile")
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "labels_only"
    if not folder.exists():
        pytest.skip("the real label images (../shared/data) are not here")
    truth = tifffile.imread(folder / "platynereis_nuclei.tif")
    prediction = tifffile.imread(folder / "platynereis_voronoi_otsu.tif")
    scores = evaluate(prediction, truth)

    joint = np.histogram2d(
        truth.ravel(),
        prediction.ravel(),
        bins=(truth.max() + 1, prediction.max() + 1),
        range=((-0.5, truth.max() + 0.5), (-0.5, prediction.max() + 0.5)),
    )[0]
    union = joint.sum(1, keepdims=True) + joint.sum(0, keepdims=True) - joint
    iou = (joint / np.maximum(union, 1))[1:, 1:]
    iou = iou[joint.sum(1)[1:] > 0][:, joint.sum(0)[1:] > 0]
    assert (scores.true_cells, scores.predicted_cells) == iou.shape == (36, 33)
    assert scores.mean_jaccard == pytest.approx(iou.max(1).mean())
    assert scores.mean_dice == pytest.approx((2 * iou.max(1) / (1 + iou.max(1))).mean())
    for row in scores.matching:
        assert row.true_positives == (iou >= row.threshold).sum()
