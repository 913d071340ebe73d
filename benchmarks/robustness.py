"""What ordinary accidents of a microscope leave of the accuracy: docs/robustness.md.

    python benchmarks/robustness.py                     # every bundled model and the baseline
    python benchmarks/robustness.py --model nuclei      # one model
    python benchmarks/robustness.py --only Emb04 dirt   # with these words; prints only

Stacks are those of `accuracy.py` that the model has not seen. Each accident is drawn once per
stack with a seed of its own, so that all methods see the same.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accidents import ACCIDENTS, Accident, Image
from accuracy import model_options, training_records
from accuracy_stacks import LabelledStack, median_diameter, stacks
from report import parser, table, write
from watershed_baseline import segment_membranes, segment_nuclei

import cellrt
from cellrt.evaluation import evaluate

BASELINE = "Otsu + watershed"
UNDISTURBED = Accident("undisturbed", lambda image, labels, rng: (image, labels))
# Of each group of stacks, how many are disturbed.
PER_GROUP = 2


@dataclass(frozen=True)
class Row:
    """Scores of one method on one stack after one accident."""

    stack: str
    accident: str
    method: str
    ap50: float
    mean_dice: float
    found: int
    true: int
    warnings: int
    seconds: float


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", nargs="*", help="bundled models or .onnx files")
    options.add_argument("--only", nargs="*", default=[], help="words of stacks or accidents")
    options.add_argument("--no-baseline", action="store_true")
    arguments = options.parse_args()
    records = training_records()
    models = arguments.model or list(records)
    words = [word.lower() for word in arguments.only]
    rows: list[Row] = []
    for stack in _unseen(stacks(), records):
        image, labels = stack.load()
        for accident in (UNDISTURBED, *ACCIDENTS):
            text = f"{stack.name} {accident.name}".lower()
            if words and accident is not UNDISTURBED and not any(w in text for w in words):
                continue
            if accident.background and labels.all():
                continue
            rng = np.random.default_rng(zlib.crc32(text.encode()))
            changed, truth = accident.play(image, labels, rng)
            for model in models:
                target = cellrt.load_model(model).card.target
                if target == stack.model:
                    rows.append(_row(stack, accident, model, changed, truth))
            if not arguments.no_baseline:
                rows.append(_row(stack, accident, BASELINE, changed, truth))
            for row in rows[-len(models) - 1 :]:
                if row.accident == accident.name and row.stack == stack.name:
                    print(
                        f"{row.stack:24} {row.accident[:44]:44} {Path(row.method).stem:20} "
                        f"AP50 {row.ap50:.3f} {row.found}/{row.true} w{row.warnings} "
                        f"{row.seconds:.1f} s",
                        flush=True,
                    )
    text = document(rows)
    if arguments.only or arguments.model:
        print(text)
    else:
        write("robustness", "Robustness", text, [asdict(row) for row in rows])


def _unseen(found: Sequence[LabelledStack], records: dict[str, Any]) -> list[LabelledStack]:
    """The first stacks of every group that no model was trained on."""
    groups: dict[str, list[LabelledStack]] = defaultdict(list)
    for stack in found:
        status = {r.status(stack) for r in records.values() if r.target == stack.model}
        if "seen" in status or "checked" in status or stack.sparse or stack.smoke:
            continue
        # What is not scored was trained on, and accidents move voxels.
        if any(part != slice(None) for part in stack.scored):
            continue
        groups[stack.group].append(stack)
    # Later times of an embryo have more cells.
    return [stack for group in groups.values() for stack in group[-PER_GROUP:]]


def _row(stack: LabelledStack, accident: Accident, method: str, image: Image, truth: Image) -> Row:
    diameter = median_diameter(truth, stack.anisotropy)
    start = time.perf_counter()
    warnings = 0
    if method == BASELINE:
        baseline = segment_nuclei if stack.model == "nuclei" else segment_membranes
        labels = baseline(image, diameter=diameter, anisotropy=stack.anisotropy)
    else:
        options, _ = model_options(stack, diameter)
        result = cellrt.segment(image, model=method, **options)
        labels, warnings = result.labels, len(result.warnings)
    seconds = time.perf_counter() - start
    scores = evaluate(labels, truth, thresholds=(0.5,))
    return Row(
        stack.name,
        accident.name,
        method,
        scores.at(0.5).average_precision,
        scores.mean_dice,
        scores.predicted_cells,
        scores.true_cells,
        warnings,
        seconds,
    )


def document(rows: Sequence[Row]) -> str:
    """The table: share of the undisturbed AP50 that is left, mean over stacks."""
    methods = list(dict.fromkeys(row.method for row in rows))
    undisturbed = {
        (row.stack, row.method): row.ap50 for row in rows if row.accident == UNDISTURBED.name
    }
    names = [a for a in dict.fromkeys(row.accident for row in rows) if a != UNDISTURBED.name]
    lines = [
        (
            UNDISTURBED.name + " (AP50)",
            *(
                f"{statistics.fmean(v for (_, m), v in undisturbed.items() if m == method):.3f}"
                for method in methods
            ),
        )
    ]
    for name in names:
        cells = []
        for method in methods:
            shares = [
                row.ap50 / undisturbed[row.stack, method]
                for row in rows
                if row.accident == name
                and row.method == method
                and undisturbed[row.stack, method] > 0
            ]
            cells.append(f"{statistics.fmean(shares):.2f}" if shares else "-")
        lines.append((name, *cells))
    header = ("accident", *(Path(method).stem for method in methods))
    return (
        "Share of the undisturbed AP50 that is left after an accident, mean over stacks.\n\n"
        + table(header, lines)
    )


if __name__ == "__main__":
    main()
