"""Fit how a decoder's evidence relates to truth, for a model's card.

The fit is a logistic regression (scikit-learn) of whether cells match a true one at an IoU of 0.5,
and one of the stacks' average precision, on stacks that the model was not trained on. Accidents
and other worlds belong in there too: what is never wrong teaches no doubt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.evaluation.cells import cell_overlaps
from cellrt.evaluation.matching import match_cells, score_matching
from cellrt.evaluation.overlap import overlap_table
from cellrt.runtime.model.card_parts import Confidence
from cellrt.runtime.results.confidence import MEAN, SIZE, relative_size, term

FloatArray = NDArray[np.float64]

IOU = 0.5
CONFIDENCE = "confidence"

TERMS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "flows": (
        ("logit probability", "log flow_error", "plain touches_border", f"log {SIZE}"),
        (f"plain {MEAN}", "log unsure", "log flow_error"),
    ),
    "tascan": (
        ("logit class_match", "logit interior_share", "plain touches_border"),
        (f"plain {MEAN}", "log class_mismatch", "log missed"),
    ),
    "star": (
        ("logit probability", "logit shape_match", "plain touches_border", f"log {SIZE}"),
        (f"plain {MEAN}", "log missed"),
    ),
    "embedding": (
        ("logit probability", "log embedding_error", "plain touches_border", f"log {SIZE}"),
        (f"plain {MEAN}", "log embedding_error", "log missed"),
    ),
}
"""By decoder: the terms for cells, and those for stacks."""


@dataclass(frozen=True)
class JudgedStack:
    """A segmented stack whose cells are known.

    Attributes
    ----------
    cells : dict of str to (cells,) float64 array
        What speaks for and against each found cell: the decoder's evidence, and the table's; and
        the confidence, where the model has one already.
    right : (cells,) bool array
        Whether it matches a true cell.
    volume : dict of str to float
        The decoder's evidence for the stack.
    ap50 : float
        True average precision at an IoU of 0.5.
    """

    cells: Mapping[str, FloatArray]
    right: NDArray[np.bool_]
    volume: Mapping[str, float]
    ap50: float


def judge_stack(
    result: Any, truth: NDArray[np.integer[Any]], *, ignore_unlabelled: bool = False
) -> JudgedStack:
    """Compare a result with the truth.

    Parameters
    ----------
    result : cellrt.runtime.results.segmentation.Segmentation
        Of a model's own decoder.
    truth : integer array of the labels' shape
    ignore_unlabelled : bool
        For sparse truth: cells mostly without a label in it, that match none, are neither right nor
        wrong and left out.
    """
    cell_terms, stack_terms = _terms(result.record["decoder"]["name"])
    overlaps = cell_overlaps(overlap_table(result.labels, truth))
    pairs = match_cells(overlaps, IOU)
    right = np.zeros(overlaps.prediction_ids.size, bool)
    right[overlaps.pair_prediction[pairs]] = True
    known = right | ~overlaps.mostly_unlabelled if ignore_unlabelled else np.ones_like(right)
    columns = {**result.table.columns, SIZE: relative_size(result.table)}
    names = _names(cell_terms)
    if CONFIDENCE in columns:
        names.append(CONFIDENCE)
    evidence = result.record["quality"]["evidence"]
    return JudgedStack(
        {name: np.asarray(columns[name], np.float64)[known] for name in names},
        right[known],
        {name: float(evidence[name]) for name in _names(stack_terms) if name != MEAN},
        score_matching(overlaps, IOU, ignore_unlabelled=ignore_unlabelled).average_precision,
    )


def fit_confidence(decoder: str, stacks: Sequence[JudgedStack], data: str) -> Confidence:
    """Fit both regressions; each stack weighs the same in the second, its root in the first.

    Parameters
    ----------
    decoder : str
        Name of the model's decoder.
    stacks : sequence of JudgedStack
        Some without cells are welcome: they count in nothing.
    data : str
        What they are, for the card.

    Raises
    ------
    UsageError
        A decoder that gives no evidence, or cells that are all right or all wrong.
    """
    cell_terms, stack_terms = _terms(decoder)
    full = [stack for stack in stacks if stack.right.size]
    right = np.concatenate([stack.right for stack in full]) if full else np.zeros(0, bool)
    if right.all() or not right.any():
        raise UsageError("confidence needs stacks with right cells and stacks with wrong ones")
    # A stack of a thousand cells says more than one of ten, but not a hundred times as much.
    weight = np.concatenate([np.full(s.right.size, s.right.size**-0.5) for s in full])
    columns = [_columns(cell_terms, stack.cells) for stack in full]
    cell = _regression(cell_terms, np.concatenate(columns), right.astype(float), weight)
    rows = []
    for stack, terms in zip(full, columns, strict=True):
        mean = 1 / (1 + np.exp(-(terms @ _vector(cell_terms, cell) + cell["constant"])))
        known = {MEAN: mean.mean(), **stack.volume}
        rows.append(_columns(stack_terms, {k: np.array([v]) for k, v in known.items()}))
    truth = np.array([stack.ap50 for stack in full])
    whole = _regression(stack_terms, np.concatenate(rows), truth, np.ones(len(full)))
    return Confidence(cell, whole, data)


def calibration_error(confidence: FloatArray, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: how far confidence is from the share of right cells.

    Mean over the cells of the difference between both in bins of equal width of the confidence
    (Guo et al., ICML 2017, eq. 3).
    """
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = np.bincount(number, confidence - right, minlength=bins)
    return float(np.abs(sums).sum() / max(confidence.size, 1))


def _terms(decoder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if decoder not in TERMS:
        raise UsageError(
            f"cells of the decoder {decoder} have no evidence to fit a confidence on; those of "
            f"{' and '.join(TERMS)} have"
        )
    return TERMS[decoder]


def _names(terms: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(" ")[2] for name in terms))


def _columns(terms: Sequence[str], known: Mapping[str, FloatArray]) -> FloatArray:
    return np.stack([term(name, known) for name in terms], axis=1)


def _vector(terms: Sequence[str], weights: Mapping[str, float]) -> FloatArray:
    return np.array([weights[name] for name in terms])


def _regression(
    names: Sequence[str], terms: FloatArray, share: FloatArray, weight: FloatArray
) -> dict[str, float]:
    """Logistic regression of shares between 0 and 1, as weights by name."""
    from sklearn.linear_model import LogisticRegression

    # In units of their own spread, terms are held back alike where they say the same.
    middle, spread = terms.mean(axis=0), terms.std(axis=0) + 1e-9
    scaled = (terms - middle) / spread
    # A share counts as that much of a success, and the rest as a failure.
    model = LogisticRegression(C=1.0, max_iter=10_000).fit(
        np.concatenate([scaled, scaled]),
        np.concatenate([np.ones(len(terms)), np.zeros(len(terms))]),
        np.concatenate([weight * share, weight * (1 - share)]),
    )
    weights = model.coef_[0] / spread
    constant = model.intercept_[0] - float(weights @ middle)
    found = {"constant": constant, **dict(zip(names, weights, strict=True))}
    return {name: round(float(value), 4) for name, value in found.items()}
