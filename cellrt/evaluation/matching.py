"""One-to-one matching of predicted to true cells, and the scores that count the matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.evaluation.cells import CellOverlaps

# Recall levels at which COCO samples the precision-recall curve: 0, 0.01, ..., 1.
_COCO_LEVELS = 101

# Largest rows x columns of a block that is assigned as a full matrix (8 MB).
_DENSE_BLOCK = 1_000_000


@dataclass(frozen=True)
class ThresholdScores:
    """Scores of the one-to-one matching at one IoU threshold.

    A pair may match when its intersection over union is at least the threshold; the matching has
    as many pairs as possible and, among those, the highest total IoU. A quotient 0/0 is 1 when
    there are no cells on either side, else 0.

    Attributes
    ----------
    threshold : float
        Smallest IoU of a match.
    true_positives, false_positives, false_negatives : int
        Matches, predicted cells without a match, true cells without a match.
    precision : float
        TP / (TP + FP).
    recall : float
        TP / (TP + FN).
    f1 : float
        2 TP / (2 TP + FP + FN).
    average_precision : float
        TP / (TP + FP + FN), the measure that StarDist, Cellpose and the Data Science Bowl 2018
        call average precision (Caicedo et al., Nature Methods 16, 2019,
        doi:10.1038/s41592-019-0612-7). It is no area under a curve.
    coco_average_precision : float
        Area under the interpolated precision-recall curve sampled at 101 recalls as COCO does
        (Lin et al., ECCV 2014, doi:10.1007/978-3-319-10602-1_48). Labels carry no confidence, so
        all predictions rank equal and the curve is one point: precision at every recall sampled
        up to the recall reached, 0 beyond.
    panoptic_quality : float
        Sum of the IoU of the matches / (TP + FP / 2 + FN / 2) (Kirillov et al., CVPR 2019,
        doi:10.1109/CVPR.2019.00963).
    mean_matched_iou : float
        Mean IoU of the matches, the segmentation quality of panoptic quality.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: float
    recall: float
    f1: float
    average_precision: float
    coco_average_precision: float
    panoptic_quality: float
    mean_matched_iou: float


def match_cells(overlaps: CellOverlaps, threshold: float) -> NDArray[np.int64]:
    """Match predicted to true cells one to one.

    Parameters
    ----------
    overlaps : CellOverlaps
        Overlaps of the two label images.
    threshold : float
        Smallest intersection over union of a match, above 0.

    Returns
    -------
    ndarray of int64
        Positions in ``overlaps.pair_prediction`` of the matched pairs: as many as can be, and of
        all such matchings the one of highest total IoU.

    Notes
    -----
    Above IoU 0.5 no cell can have two partners, so every pair is a match. At 0.5 and below the
    pairs that compete are few and local: linear assignment runs on each connected block of the
    overlap graph by itself.
    """
    iou = overlaps.iou
    candidates = np.flatnonzero(iou >= threshold)
    if threshold > 0.5:
        return candidates
    rows, columns = overlaps.pair_prediction[candidates], overlaps.pair_truth[candidates]
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    matched = [candidates[alone]]
    rivals = candidates[~alone]
    for block in _connected_blocks(overlaps.pair_prediction[rivals], overlaps.pair_truth[rivals]):
        pairs = rivals[block]
        chosen = _assign(overlaps.pair_prediction[pairs], overlaps.pair_truth[pairs], iou[pairs])
        matched.append(pairs[chosen])
    return np.sort(np.concatenate(matched))


def score_matching(
    overlaps: CellOverlaps, threshold: float, *, ignore_unlabelled: bool = False
) -> ThresholdScores:
    """Match at one threshold and count.

    With `ignore_unlabelled` a predicted cell without a match is no false positive when more than
    half of it lies where the truth has no label.
    """
    matched = match_cells(overlaps, threshold)
    hits = int(matched.size)
    missed = np.ones(overlaps.prediction_ids.size, bool)
    missed[overlaps.pair_prediction[matched]] = False
    if ignore_unlabelled:
        missed &= ~overlaps.mostly_unlabelled
    spurious = int(missed.sum())
    lost = int(overlaps.truth_ids.size) - hits
    iou_sum = float(overlaps.iou[matched].sum())
    empty = hits + spurious + lost == 0

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else float(empty)

    precision = ratio(hits, hits + spurious)
    recall = ratio(hits, hits + lost)
    # In whole numbers: a recall of exactly 0.07 must reach the level 0.07.
    levels = 1 + (_COCO_LEVELS - 1) * hits // (hits + lost) if hits else 0
    return ThresholdScores(
        threshold=threshold,
        true_positives=hits,
        false_positives=spurious,
        false_negatives=lost,
        precision=precision,
        recall=recall,
        f1=ratio(2 * hits, 2 * hits + spurious + lost),
        average_precision=ratio(hits, hits + spurious + lost),
        coco_average_precision=1.0 if empty else precision * levels / _COCO_LEVELS,
        panoptic_quality=ratio(iou_sum, hits + spurious / 2 + lost / 2),
        mean_matched_iou=ratio(iou_sum, hits),
    )


def _connected_blocks(
    rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Sequence[NDArray[np.int64]]:
    """Group pairs whose cells are linked by a chain of pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if rows.size == 0:
        return []
    first = np.unique(rows, return_inverse=True)[1]
    second = np.unique(columns, return_inverse=True)[1] + first.max() + 1
    nodes = int(second.max()) + 1
    graph = coo_array((np.ones(rows.size, np.int8), (first, second)), shape=(nodes, nodes))
    block = connected_components(graph.tocsr(), directed=False)[1][first]
    order = np.argsort(block, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(block[order])) + 1)


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose pairs of one block: the most pairs first, then the highest total IoU."""
    row_ids, first = np.unique(rows, return_inverse=True)
    column_ids, second = np.unique(columns, return_inverse=True)
    shape = row_ids.size, column_ids.size
    # One more pair always outweighs any gain in IoU, which is at most 1 for each pair.
    value = min(shape) + 1.0 + iou
    if shape[0] * shape[1] <= _DENSE_BLOCK:
        return _assign_dense(first, second, value, shape)
    return _assign_sparse(first, second, value, shape)


def _assign_dense(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    from scipy.optimize import linear_sum_assignment

    values = np.zeros(shape)
    values[rows, columns] = value
    pair = np.full(shape, -1, np.int64)
    pair[rows, columns] = np.arange(rows.size)
    chosen: NDArray[np.int64] = pair[linear_sum_assignment(values, maximize=True)]
    return chosen[chosen >= 0]


def _assign_sparse(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """Assign in memory proportional to the pairs; a column of its own lets each row go without."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    own = np.arange(shape[0])
    alone = value.max() + 1.0
    cost = np.concatenate([alone - value, np.full(shape[0], alone)])
    where = np.concatenate([rows, own]), np.concatenate([columns, shape[1] + own])
    graph = coo_array((cost, where), shape=(shape[0], shape[1] + shape[0])).tocsr()
    taken_rows, taken_columns = min_weight_full_bipartite_matching(graph)
    order = np.argsort(rows * shape[1] + columns)
    keys = (rows * shape[1] + columns)[order]
    real = taken_columns < shape[1]
    taken = taken_rows[real].astype(np.int64) * shape[1] + taken_columns[real]
    chosen: NDArray[np.int64] = order[np.searchsorted(keys, taken)]
    return chosen
