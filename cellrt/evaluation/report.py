"""Scores as text for people."""

from __future__ import annotations

from typing import TextIO

from cellrt.evaluation.definitions import DEFINITIONS
from cellrt.evaluation.scores import Scores
from cellrt.wording import counted

_ERRORS = {
    "count_difference",
    "adapted_rand_error",
    "variation_of_information_split",
    "variation_of_information_merge",
}
_HEADINGS = {
    "mean_dice": "mean Dice",
    "median_dice": "median Dice",
    "mean_jaccard": "mean Jaccard",
    "dice_above_50": "Dice > 0.5",
    "dice_above_70": "Dice > 0.7",
    "jaccard_above_50": "Jaccard > 0.5",
    "jaccard_above_70": "Jaccard > 0.7",
    "seg": "SEG",
    "symmetric_best_dice": "symmetric best Dice",
    "count_difference": "|DiC|",
    "adapted_rand_error": "adapted Rand error",
    "variation_of_information_split": "VOI split",
    "variation_of_information_merge": "VOI merge",
    "mean_average_precision": "mean AP",
    "coco_average_precision": "COCO AP",
}


def print_scores(scores: Scores, *, title: str = "", file: TextIO | None = None) -> None:
    """Print scores as two tables with the definition of each score next to it.

    Parameters
    ----------
    scores : Scores
        What `evaluate` returned.
    title : str
        Line above the tables, such as the names of the two files.
    file : text stream, optional
        Standard output if left out.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file, highlight=False)
    if title:
        console.print(title, markup=False, soft_wrap=True)
    console.print(_counts(scores), markup=False)

    whole = Table(box=None, pad_edge=False)
    whole.add_column("score", no_wrap=True)
    whole.add_column("value", justify="right", no_wrap=True)
    whole.add_column("best", justify="right", no_wrap=True)
    whole.add_column("definition")
    for name, heading in _HEADINGS.items():
        value = getattr(scores, name)
        whole.add_row(
            heading,
            f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value),
            "0" if name in _ERRORS else "1",
            DEFINITIONS[name].meaning,
        )
    console.print()
    console.print(whole)

    rows = Table(box=None, pad_edge=False)
    for heading in ("IoU >=", "TP", "FP", "FN", "AP", "precision", "recall", "F1", "PQ"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for row in scores.matching:
        rows.add_row(
            f"{row.threshold:g}",
            str(row.true_positives),
            str(row.false_positives),
            str(row.false_negatives),
            f"{row.average_precision:.3f}",
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            f"{row.panoptic_quality:.3f}",
        )
    console.print()
    console.print(rows)
    console.print(
        f"AP = {DEFINITIONS['average_precision'].meaning}; "
        f"PQ = {DEFINITIONS['panoptic_quality'].meaning}",
        markup=False,
    )


def _counts(scores: Scores) -> str:
    line = counted(scores.predicted_cells, "predicted cell")
    line += ", " + counted(scores.true_cells, "true cell")
    if scores.ignore_unlabelled:
        line += (
            "; unlabelled voxels ignored: "
            f"{counted(scores.ignored_cells, 'predicted cell')} mostly on them left out"
        )
    return line
