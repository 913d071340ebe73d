"""Scores that compare two label images as partitions of the voxels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.evaluation.overlap import OverlapTable


class RandError(NamedTuple):
    """Adapted Rand error with the precision and recall it is made of."""

    error: float
    precision: float
    recall: float


class VariationOfInformation(NamedTuple):
    """Both parts of the variation of information, in bits."""

    split: float
    merge: float


def adapted_rand_error(table: OverlapTable) -> RandError:
    """Adapted Rand error over the voxels that are labelled in the truth.

    Over all pairs of voxels inside the true cells, precision is the share of the pairs joined by
    the prediction that belong together, recall the share of the pairs that belong together which
    the prediction joins, and the error is 1 - their harmonic mean. Voxels of the true background
    are left out; voxels predicted as background count as one segment. That is the definition of
    Arganda-Carreras et al. (Frontiers in Neuroanatomy 9, 2015, doi:10.3389/fnana.2015.00142) as
    scikit-image computes it by default.

    Returns
    -------
    RandError
        Where the truth has no cell, no voxel is left to compare: precision and recall are 1 and
        the error 0 when the prediction has no cell either, and 0, 0 and 1 when it has. Where only
        the prediction has none, its background joins all true cells, and the error says how many
        of the pairs that joins belong apart: 0 for a single true cell, which other scores tell.
        Error 0 as well where every true cell is a single voxel, and no pairs are joined.
    """
    if not np.any(table.truth_ids) and np.any(table.prediction_ids):
        return RandError(1.0, 0.0, 0.0)
    inside = table.labelled_only()
    joined = _pairs(inside.pair_voxels)
    predicted = _pairs(inside.prediction_voxels)
    true = _pairs(inside.truth_voxels)
    if predicted + true == 0:
        return RandError(0.0, 1.0, 1.0)
    return RandError(
        error=1.0 - 2.0 * joined / (predicted + true),
        precision=joined / predicted if predicted else 1.0,
        recall=joined / true if true else 1.0,
    )


def variation_of_information(table: OverlapTable) -> VariationOfInformation:
    """Variation of information in bits, over all voxels of the table.

    split = H(prediction | truth) grows when true cells are cut, merge = H(truth | prediction)
    when they are joined; their sum is the variation of information (Meila, Journal of Multivariate
    Analysis 98, 2007, doi:10.1016/j.jmva.2006.11.013). Background is a segment like any other.
    """
    total = table.voxels
    if total == 0:
        return VariationOfInformation(0.0, 0.0)
    shared = table.pair_voxels.astype(np.float64)
    return VariationOfInformation(
        split=_conditional_entropy(shared, table.truth_voxels[table.pair_truth], total),
        merge=_conditional_entropy(shared, table.prediction_voxels[table.pair_prediction], total),
    )


def _pairs(voxels: NDArray[np.int64]) -> float:
    """Twice the number of voxel pairs within the segments, in float64 as it exceeds int64."""
    sizes = voxels.astype(np.float64)
    return float(np.sum(sizes * (sizes - 1.0)))


def _conditional_entropy(
    shared: NDArray[np.float64], given: NDArray[np.int64], total: int
) -> float:
    # The sum is never negative but may round to -0.0.
    return abs(float(np.sum(shared / total * np.log2(given / shared))))
