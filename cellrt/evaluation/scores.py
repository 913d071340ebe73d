"""All scores of one label image against its ground truth, in one result."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellrt.errors import CellrtWarning, UsageError
from cellrt.evaluation.cells import best_dice, best_matches, cell_overlaps, seg_per_cell
from cellrt.evaluation.definitions import DEFINITIONS
from cellrt.evaluation.doubts import doubt_labels
from cellrt.evaluation.matching import ThresholdScores, score_matching
from cellrt.evaluation.overlap import OverlapTable, layered_overlap_table, overlap_table
from cellrt.evaluation.partition import adapted_rand_error, variation_of_information

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.5 to 0.95 in steps of 0.05, as COCO and the Data Science Bowl 2018 use them."""


@dataclass(frozen=True)
class Scores:
    """Scores of one label image against its ground truth.

    Higher is better and 1 is perfect, except where noted. ``cellrt.evaluation.DEFINITIONS`` has
    the formula and the source of each by its name here.

    Two images without cells agree: all scores are 1, all errors 0. When only one of them has
    cells, scores over the cells are 0. The adapted Rand error is 1 when only the prediction has
    cells; when only the truth has, it is what joining all of them costs, 0 for a single one.

    Attributes
    ----------
    ignore_unlabelled : bool
        Whether voxels without a label in the truth counted as unknown instead of background.
    true_cells, predicted_cells : int
        Number of cells.
    ignored_cells : int
        Predicted cells left out because they are mostly unlabelled; 0 unless `ignore_unlabelled`.
    mean_dice, median_dice, mean_jaccard : float
        Over the true cells, each with its best prediction.
    dice_above_50, dice_above_70, jaccard_above_50, jaccard_above_70 : float
        Share of the true cells whose best Dice or Jaccard exceeds 0.5 or 0.7.
    seg : float
        SEG of the Cell Tracking Challenge.
    symmetric_best_dice, best_dice_prediction, best_dice_truth : float
        Symmetric best Dice and the two means it is the smaller one of.
    count_difference : int
        |DiC|, absolute difference in the number of cells; 0 is perfect.
    adapted_rand_error : float or None
        0 is perfect. This and the next four compare partitions of the image, which cells that
        overlap are not: None there.
    rand_precision, rand_recall : float or None
        Parts of the adapted Rand error.
    variation_of_information_split, variation_of_information_merge : float or None
        In bits, 0 is perfect, without an upper bound.
    coco_average_precision : float
        Mean over IoU 0.5 to 0.95, whatever thresholds were asked for.
    mean_average_precision : float
        Mean of TP / (TP + FP + FN) over the thresholds asked for.
    matching : tuple of ThresholdScores
        One row for each IoU threshold, ascending.
    """

    ignore_unlabelled: bool
    true_cells: int
    predicted_cells: int
    ignored_cells: int
    mean_dice: float
    median_dice: float
    mean_jaccard: float
    dice_above_50: float
    dice_above_70: float
    jaccard_above_50: float
    jaccard_above_70: float
    seg: float
    symmetric_best_dice: float
    best_dice_prediction: float
    best_dice_truth: float
    count_difference: int
    adapted_rand_error: float | None
    rand_precision: float | None
    rand_recall: float | None
    variation_of_information_split: float | None
    variation_of_information_merge: float | None
    coco_average_precision: float
    mean_average_precision: float
    matching: tuple[ThresholdScores, ...]

    def at(self, threshold: float) -> ThresholdScores:
        """Return the row of one IoU threshold.

        Raises
        ------
        UsageError
            When that threshold was not computed.
        """
        for row in self.matching:
            if abs(row.threshold - threshold) < 1e-9:
                return row
        known = ", ".join(f"{row.threshold:g}" for row in self.matching)
        raise UsageError(
            f"no scores at IoU threshold {threshold:g}, only at {known}: pass it in `thresholds`"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists for JSON, with the definition of each score."""
        values = asdict(self)
        values["matching"] = [dict(row) for row in values["matching"]]
        values["definitions"] = {
            name: str(DEFINITIONS[name])
            for name in [field.name for field in fields(self)]
            + [field.name for field in fields(ThresholdScores)]
            if name in DEFINITIONS
        }
        return values


def evaluate(
    prediction: ArrayLike,
    truth: ArrayLike,
    *,
    ignore_unlabelled: bool = False,
    layers: bool = False,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> Scores:
    """Score a label image against its ground truth.

    Parameters
    ----------
    prediction, truth : array_like
        Label images of one shape, 2D, 3D or any other number of dimensions, 0 = background. Any
        integer type and any ids, in any order and with gaps; floating point when all values are
        whole. A label is one cell, connected or not. Memory maps and HDF5 or Zarr datasets are
        read piece by piece.
    ignore_unlabelled : bool
        For sparse ground truth, where 0 means "not annotated" instead of "no cell". Predicted
        cells with more than half of their voxels on 0 are no false positives and do not enter
        counts or best-Dice means, and the partition scores (Rand, information) take in labelled
        voxels only. Cells are never clipped: a prediction that spills out of a true cell still
        pays for it. The result names the option.
    layers : bool
        Whether cells may overlap: the first axis of both then holds layers, as many in each as
        there are, of cells that do not. Scores of partitions are not computed.
    thresholds : sequence of float
        IoU thresholds of the one-to-one matching, each above 0 and at most 1.

    Returns
    -------
    Scores
        Exact scores of the whole volumes, nothing sampled and nothing masked.

    Raises
    ------
    InputError
        When the shapes differ or an image holds no labels (negative, fractional, not finite).
    UsageError
        When a threshold is outside (0, 1].

    Warns
    -----
    CellrtWarning
        When one of the two looks like an image and not like labels.

    Examples
    --------
    >>> scores = evaluate([[1, 1, 0, 2]], [[5, 5, 0, 0]])
    >>> scores.mean_dice, scores.at(0.5).precision, scores.at(0.5).recall
    (1.0, 0.5, 1.0)
    """
    levels = _checked(thresholds)
    table = (layered_overlap_table if layers else overlap_table)(prediction, truth)
    for image, name in ((prediction, "prediction"), (truth, "truth")):
        doubt = doubt_labels(image, name)
        if doubt is not None:
            warnings.warn(doubt, CellrtWarning, stacklevel=2)
    return score_table(table, ignore_unlabelled=ignore_unlabelled, layers=layers, thresholds=levels)


def score_table(
    table: OverlapTable,
    *,
    ignore_unlabelled: bool = False,
    layers: bool = False,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> Scores:
    """Compute all scores from an overlap table; see `evaluate`."""
    overlaps = cell_overlaps(table)
    cells = best_matches(overlaps)
    predicted_best, true_best = best_dice(overlaps)
    counted = (
        ~overlaps.mostly_unlabelled if ignore_unlabelled else np.ones(predicted_best.size, bool)
    )
    predicted, true = int(counted.sum()), int(overlaps.truth_ids.size)
    empty = predicted + true == 0

    def mean(values: NDArray[Any]) -> float:
        return float(values.mean()) if values.size else float(empty)

    rows = {
        level: score_matching(overlaps, level, ignore_unlabelled=ignore_unlabelled)
        for level in {*thresholds, *IOU_THRESHOLDS}
    }
    partition_table = table.labelled_only() if ignore_unlabelled else table
    rand = None if layers else adapted_rand_error(partition_table)
    information = None if layers else variation_of_information(partition_table)
    best_prediction, best_truth = mean(predicted_best[counted]), mean(true_best)
    return Scores(
        ignore_unlabelled=ignore_unlabelled,
        true_cells=true,
        predicted_cells=int(overlaps.prediction_ids.size),
        ignored_cells=int(overlaps.prediction_ids.size) - predicted,
        mean_dice=mean(cells.dice),
        median_dice=float(np.median(cells.dice)) if true else float(empty),
        mean_jaccard=mean(cells.jaccard),
        dice_above_50=mean(cells.dice > 0.5),
        dice_above_70=mean(cells.dice > 0.7),
        jaccard_above_50=mean(cells.jaccard > 0.5),
        jaccard_above_70=mean(cells.jaccard > 0.7),
        seg=mean(seg_per_cell(overlaps)),
        symmetric_best_dice=min(best_prediction, best_truth),
        best_dice_prediction=best_prediction,
        best_dice_truth=best_truth,
        count_difference=abs(predicted - true),
        adapted_rand_error=rand and rand.error,
        rand_precision=rand and rand.precision,
        rand_recall=rand and rand.recall,
        variation_of_information_split=information and information.split,
        variation_of_information_merge=information and information.merge,
        coco_average_precision=_mean([rows[t].coco_average_precision for t in IOU_THRESHOLDS]),
        mean_average_precision=_mean([rows[t].average_precision for t in thresholds]),
        matching=tuple(rows[level] for level in thresholds),
    )


def _checked(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return ascending thresholds free of the rounding of sums like 0.5 + 0.05 + 0.05."""
    levels = tuple(sorted({round(float(level), 9) for level in thresholds}))
    if not levels or not all(0 < level <= 1 for level in levels):
        raise UsageError(
            f"IoU thresholds {list(thresholds)} cannot be used, expected at least one number "
            "above 0 and at most 1, such as 0.5"
        )
    return levels


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))
