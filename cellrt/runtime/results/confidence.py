"""How far to trust each cell, and a stack as a whole.

A decoder says what the network's fields speak for and against each cell (`Evidence`). A model's
card says how that relates to truth: logistic regressions that were fitted on stacks with known
cells, see :mod:`cellrt.evaluation.confidence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.base import Evidence
from cellrt.runtime.model.card_parts import Confidence
from cellrt.runtime.results.table import CellTable

FloatArray = NDArray[np.float64]

MEAN = "mean_confidence"
SIZE = "relative_size"
"""A cell's voxels, as a share of those of the stack's median cell, at most 1. More of a small cell
is border, where the network doubts: its mean probability is low without its being wrong."""

# Beyond these, evidence says nothing more: it keeps a single term from deciding alone.
_LOG_FLOOR = 0.01
_LOGIT_FLOOR = 0.01


@dataclass(frozen=True)
class Quality:
    """What is to be expected of a stack's cells.

    Attributes
    ----------
    evidence : dict of str to float
        What the decoder knows of the volume as a whole, and the mean confidence.
    expected_ap50 : float or None
        Average precision at an IoU of 0.5 to be expected; None where the model does not say, and
        where no cells were found: whether there are any, nothing tells.
    """

    evidence: dict[str, float]
    expected_ap50: float | None = None

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        ap50 = self.expected_ap50
        return {
            "expected_ap50": None if ap50 is None else round(ap50, 3),
            "evidence": {name: round(value, 5) for name, value in self.evidence.items()},
        }


def judge(
    table: CellTable, evidence: Evidence, fitted: Confidence | None
) -> tuple[CellTable, Quality]:
    """Add to a table what speaks for its cells, and say what to expect of the stack.

    Parameters
    ----------
    table : CellTable
        Its ids are the evidence's labels.
    evidence : Evidence
    fitted : Confidence or None
        Without it there is no column ``confidence``: the probability of each cell to match a true
        one at an IoU of 0.5.

    Returns
    -------
    table : CellTable
    quality : Quality
    """
    cells = {name: values[table["id"]] for name, values in evidence.cells.items()}
    whole = dict(evidence.volume)
    if fitted is None:
        return table.with_columns(cells), Quality(whole)
    known_of_cells = {**table.columns, **cells, SIZE: relative_size(table)}
    confidence = _sigmoid(weighted(known_of_cells, fitted.cell, len(table)))
    if not len(table):
        return table.with_columns({"confidence": confidence, **cells}), Quality(whole)
    whole = {MEAN: float(confidence.mean()), **whole}
    known = {name: np.array([value]) for name, value in whole.items()}
    expected = float(_sigmoid(weighted(known, fitted.stack, 1))[0])
    return table.with_columns({"confidence": confidence, **cells}), Quality(whole, expected)


def relative_size(table: CellTable) -> FloatArray:
    """What each cell is of the median one, at most 1; see `SIZE`."""
    name = "volume_voxels" if "volume_voxels" in table.columns else "area_voxels"
    voxels = np.asarray(table[name], np.float64)
    if not voxels.size:
        return voxels
    relative: FloatArray = np.minimum(voxels / np.median(voxels), 1)
    return relative


def weighted(
    known: Mapping[str, FloatArray], weights: Mapping[str, float], size: int
) -> FloatArray:
    """Weighted sum of terms, see :class:`~cellrt.runtime.model.card_parts.Confidence`."""
    total = np.full(size, weights.get("constant", 0.0), np.float64)
    for name, weight in weights.items():
        if name != "constant":
            total += weight * term(name, known)
    return total


def term(name: str, known: Mapping[str, FloatArray]) -> FloatArray:
    """One term: a piece of evidence as it is, its logarithm or its logit."""
    how, _, what = name.partition(" ")
    value = np.asarray(known[what], np.float64)
    if how == "plain":
        return value
    if how == "log":
        logarithm: FloatArray = np.log(value + _LOG_FLOOR)
        return logarithm
    p = np.clip(value, _LOGIT_FLOOR, 1 - _LOGIT_FLOOR)
    logit: FloatArray = np.log(p / (1 - p))
    return logit


def _sigmoid(x: FloatArray) -> FloatArray:
    result: FloatArray = 1 / (1 + np.exp(-x))
    return result
