"""Cells and the overlaps between them: the table without its background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.evaluation.overlap import OverlapTable


@dataclass(frozen=True)
class CellOverlaps:
    """Overlaps between predicted and true cells, without the background.

    Attributes
    ----------
    prediction_ids, truth_ids : ndarray
        Labels of the cells, ascending, without 0.
    prediction_voxels, truth_voxels : ndarray of int64
        Whole volume of each cell in voxels.
    pair_prediction, pair_truth : ndarray of int64
        Positions in the ids of cells that share a voxel.
    intersection : ndarray of int64
        Shared voxels of each pair.
    mostly_unlabelled : ndarray of bool
        Predicted cells with more than half of their voxels where the truth has no label.
    """

    prediction_ids: NDArray[Any]
    truth_ids: NDArray[Any]
    prediction_voxels: NDArray[np.int64]
    truth_voxels: NDArray[np.int64]
    pair_prediction: NDArray[np.int64]
    pair_truth: NDArray[np.int64]
    intersection: NDArray[np.int64]
    mostly_unlabelled: NDArray[np.bool_]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        union = (
            self.prediction_voxels[self.pair_prediction]
            + self.truth_voxels[self.pair_truth]
            - self.intersection
        )
        return self.intersection / union

    @property
    def dice(self) -> NDArray[np.float64]:
        """Twice the intersection over the sum of the volumes of each pair."""
        total = self.prediction_voxels[self.pair_prediction] + self.truth_voxels[self.pair_truth]
        return 2 * self.intersection / total


@dataclass(frozen=True)
class CellScores:
    """What became of each true cell; one entry per cell, in the order of ``truth_ids``.

    Attributes
    ----------
    truth_ids : ndarray
        Labels in the ground truth, ascending.
    truth_voxels : ndarray of int64
        Volume in voxels.
    best_prediction_ids : ndarray
        Label of the predicted cell with the highest Dice, 0 where none touches the cell.
    dice, jaccard : ndarray of float64
        Dice and Jaccard of that pair, 0 where there is none.
    """

    truth_ids: NDArray[Any]
    truth_voxels: NDArray[np.int64]
    best_prediction_ids: NDArray[Any]
    dice: NDArray[np.float64]
    jaccard: NDArray[np.float64]


def cell_overlaps(table: OverlapTable) -> CellOverlaps:
    """Take the background out of an overlap table; cells keep their whole volume."""
    is_cell = table.prediction_ids != 0
    is_true_cell = table.truth_ids != 0
    row = np.cumsum(is_cell) - 1
    column = np.cumsum(is_true_cell) - 1
    predicted = is_cell[table.pair_prediction]
    true = is_true_cell[table.pair_truth]
    both = predicted & true
    unlabelled = np.zeros(int(is_cell.sum()), np.int64)
    lost = predicted & ~true
    unlabelled[row[table.pair_prediction[lost]]] = table.pair_voxels[lost]
    voxels = table.prediction_voxels[is_cell]
    return CellOverlaps(
        prediction_ids=table.prediction_ids[is_cell],
        truth_ids=table.truth_ids[is_true_cell],
        prediction_voxels=voxels,
        truth_voxels=table.truth_voxels[is_true_cell],
        pair_prediction=row[table.pair_prediction[both]],
        pair_truth=column[table.pair_truth[both]],
        intersection=table.pair_voxels[both],
        mostly_unlabelled=2 * unlabelled > voxels,
    )


def best_matches(overlaps: CellOverlaps) -> CellScores:
    """Find the predicted cell that fits each true cell best.

    One predicted cell may be the best of several true cells. Dice D and Jaccard J order pairs the
    same way (J = D / (2 - D)), so one choice serves both; of equals the lowest label is taken.
    """
    count = overlaps.truth_ids.size
    dice = np.zeros(count)
    jaccard = np.zeros(count)
    best_ids = np.zeros(count, overlaps.prediction_ids.dtype)
    # Ascending: the last assignment to a cell wins, which is its best pair of the lowest label.
    order = np.lexsort((-overlaps.pair_prediction, overlaps.dice))
    cell = overlaps.pair_truth[order]
    dice[cell] = overlaps.dice[order]
    jaccard[cell] = overlaps.iou[order]
    best_ids[cell] = overlaps.prediction_ids[overlaps.pair_prediction[order]]
    return CellScores(overlaps.truth_ids, overlaps.truth_voxels, best_ids, dice, jaccard)


def best_dice(overlaps: CellOverlaps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the highest Dice of each predicted cell and of each true cell, 0 without a partner."""
    dice = overlaps.dice
    predicted = np.zeros(overlaps.prediction_ids.size)
    true = np.zeros(overlaps.truth_ids.size)
    np.maximum.at(predicted, overlaps.pair_prediction, dice)
    np.maximum.at(true, overlaps.pair_truth, dice)
    return predicted, true


def seg_per_cell(overlaps: CellOverlaps) -> NDArray[np.float64]:
    """Return the Jaccard of each true cell with the prediction that covers more than half of it.

    At most one prediction can. Cells without one get 0. The mean over the cells is SEG of the Cell
    Tracking Challenge (Ulman et al., Nature Methods 14, 2017, doi:10.1038/nmeth.4473).
    """
    values = np.zeros(overlaps.truth_ids.size)
    covering = 2 * overlaps.intersection > overlaps.truth_voxels[overlaps.pair_truth]
    values[overlaps.pair_truth[covering]] = overlaps.iou[covering]
    return values
