"""Scores of label images against ground truth: exact, of whole volumes, without torch."""

from __future__ import annotations

from cellrt.evaluation.cells import CellScores, best_matches, cell_overlaps
from cellrt.evaluation.definitions import DEFINITIONS
from cellrt.evaluation.matching import ThresholdScores, match_cells
from cellrt.evaluation.overlap import OverlapTable, overlap_table
from cellrt.evaluation.scores import IOU_THRESHOLDS, Scores, evaluate, score_table

__all__ = [
    "DEFINITIONS",
    "IOU_THRESHOLDS",
    "CellScores",
    "OverlapTable",
    "Scores",
    "ThresholdScores",
    "best_matches",
    "cell_overlaps",
    "evaluate",
    "match_cells",
    "overlap_table",
    "score_table",
]
