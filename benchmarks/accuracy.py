"""Accuracy of the bundled models against Otsu + distance transform + watershed, on the same stacks.

    python benchmarks/accuracy.py                     # models and baseline
    python benchmarks/accuracy.py --only-baseline     # no model needed
    python benchmarks/accuracy.py --only Emb04 ovule  # stacks whose name or group contains these;
                                                      # rows of all others stay as they were
    python benchmarks/accuracy.py --model nuclei2d    # this model alone, likewise
    python benchmarks/accuracy.py --tune nuclei       # how the baseline's settings were found

Writes docs/accuracy.md, .json and .png, and the scores for the models' cards into recipes/. Stacks
that a model was trained on, by its card and recipe, are marked and are no measure of its accuracy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from accuracy_page import METRICS, PLANAR_METRICS, balls, document
from accuracy_plot import draw
from accuracy_stacks import LabelledStack, TrainingRecord, images, median_diameter, stacks
from numpy.typing import NDArray
from report import COMMIT, DOCS, ROOT, figures, parser, write
from watershed_baseline import segment_membranes, segment_nuclei
from watershed_tuning import tune

import cellrt
from cellrt.evaluation import evaluate
from cellrt.runtime.model.file import bundled_models
from cellrt.runtime.results.masks import layers_of, whole_masks
from cellrt.wording import counted

BASELINE = "Otsu + watershed"
MEANS = tuple(dict.fromkeys((*METRICS, *PLANAR_METRICS)))
# A network of stacks that sees images beside those that are made for them.
SEES_IMAGES = "nuclei"


@dataclass(frozen=True)
class Measurement:
    """Scores of one method on one stack."""

    stack: str
    group: str
    method: str
    status: str
    scale: str
    smoke: bool
    sparse: bool
    mean_dice: float
    ap50: float
    ap75: float
    f1_50: float
    true_cells: int
    predicted_cells: int
    seconds: float
    commit: str
    sbd: float | None = None
    coco: float | None = None


def main() -> None:
    arguments = _arguments()
    everything = [*stacks(), *images()]
    words = [word.lower() for word in arguments.only or ("",)]
    chosen = {
        stack.name
        for stack in everything
        if any(word in f"{stack.group} {stack.name}".lower() for word in words)
    }
    if arguments.tune:
        tune(arguments.tune, [stack for stack in everything if stack.name in chosen])
        return
    records = {} if arguments.only_baseline else training_records(bundled_models())
    before = measured_before()
    measurements = []
    for stack in everything:
        new = measure(stack, records, arguments.model) if stack.name in chosen else []
        again = {row.method for row in new}
        kept = [row for row in before[stack.name] if row.method not in again]
        # All of a stack: what is not bundled any more goes.
        measurements += new if stack.name in chosen and not arguments.model else kept + new
    if arguments.dry_run:
        return
    rows = grouped(measurements)
    text = document(rows, balls(everything))
    write("accuracy", "Accuracy", text, [asdict(row) for row in measurements])
    draw(rows, BASELINE, DOCS / "accuracy.png")
    for name in records:
        write_scores(name, records[name], rows)


def measured_before() -> dict[str, list[Measurement]]:
    """Rows of docs/accuracy.json by stack."""
    rows: dict[str, list[Measurement]] = defaultdict(list)
    for row in figures("accuracy") or []:
        rows[row["stack"]].append(Measurement(**row))
    return rows


def write_scores(model: str, record: TrainingRecord, rows: Sequence[dict[str, Any]]) -> None:
    """Write recipes/MODEL.scores.json, which `cellrt export --scores` puts into the card."""
    single = {stack.group for stack in images()}
    scores = [
        {
            "data": f"{_in_words(row['group'])}, "
            + counted(row["stacks"], "image" if record.planar else "stack"),
            "metric": metric,
            "value": round(row[key], 3),
            "seen": False,
        }
        for row in rows
        if row["method"] == f"cellrt {model}" and row["status"] == "unseen" and not row["smoke"]
        if record.planar == (row["group"] in single)
        for metric, key in (
            (("SBD", "sbd"), ("AP at IoU 0.5", "ap50"))
            if record.planar
            else (("mean Dice", "mean_dice"), ("AP at IoU 0.5", "ap50"))
        )
        if row[key] is not None
    ]
    file = ROOT / "recipes" / f"{model}.scores.json"
    file.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


def training_records(models: Iterable[str]) -> dict[str, TrainingRecord]:
    """Read the cards of some models."""
    return {name: TrainingRecord(cellrt.load_model(name).card) for name in models}


def measure(
    stack: LabelledStack, records: dict[str, TrainingRecord], only: Sequence[str] | None
) -> list[Measurement]:
    """Run the baseline and the models that are made for such stacks, or some of these alone."""
    results = []
    image, truth = stack.load()
    diameter = median_diameter(truth[stack.scored], stack.anisotropy)
    if stack.stained and not only:
        results.append(_baseline(stack, image, truth, diameter))
    options, scale = model_options(stack, diameter)
    for model, record in records.items():
        if only and model not in only:
            continue
        if record.target != stack.model or (record.planar and image.ndim > 2):
            continue
        if image.ndim == 2 and not record.planar and model != SEES_IMAGES:
            continue
        start = time.perf_counter()
        found = cellrt.segment(image, model=model, **options).labels
        seconds = time.perf_counter() - start
        status = record.status(stack)
        results.append(_scored(stack, f"cellrt {model}", status, scale, found, truth, seconds))
    for row in results:
        print(
            f"{row.stack:22} {row.method:18} Dice {row.mean_dice:.3f} AP50 {row.ap50:.3f} "
            f"cells {row.predicted_cells}/{row.true_cells} {row.seconds:.1f} s",
            flush=True,
        )
    return results


def _baseline(
    stack: LabelledStack, image: NDArray[Any], truth: NDArray[Any], diameter: float
) -> Measurement:
    baseline = segment_nuclei if stack.model == "nuclei" else segment_membranes
    start = time.perf_counter()
    labels = baseline(np.atleast_3d(image.T).T, diameter=diameter, anisotropy=stack.anisotropy)
    labels = labels.reshape(image.shape)
    seconds = time.perf_counter() - start
    return _scored(stack, BASELINE, "unseen", "true diameter", labels, truth, seconds)


def model_options(stack: LabelledStack, diameter: float) -> tuple[dict[str, Any], str]:
    """What the model is told: what the file states, else nothing; simulations have no real size."""
    if stack.voxel_size_um is not None:
        return {"voxel_size": stack.voxel_size_um}, "voxel size"
    if not stack.files:
        return {"diameter": diameter, "anisotropy": stack.anisotropy}, "true diameter"
    return {}, "estimated"


def _scored(
    stack: LabelledStack,
    method: str,
    status: str,
    scale: str,
    labels: NDArray[Any],
    truth: NDArray[Any],
    seconds: float,
) -> Measurement:
    labels, truth = labels[stack.scored], truth[stack.scored]
    single = labels.ndim == 2
    if stack.layers is not None:
        labels, truth = layers_of(whole_masks(labels), labels.shape), stack.layers()
    scores = evaluate(
        labels,
        truth,
        ignore_unlabelled=stack.sparse,
        layers=stack.layers is not None,
        thresholds=(0.5, 0.75),
    )
    return Measurement(
        stack=stack.name,
        group=stack.group,
        method=method,
        status=status,
        scale=scale,
        smoke=stack.smoke,
        sparse=stack.sparse,
        mean_dice=scores.mean_dice,
        ap50=scores.at(0.5).average_precision,
        ap75=scores.at(0.75).average_precision,
        f1_50=scores.at(0.5).f1,
        true_cells=scores.true_cells,
        predicted_cells=scores.predicted_cells - scores.ignored_cells,
        seconds=seconds,
        commit=COMMIT,
        sbd=scores.symmetric_best_dice if single else None,
        coco=scores.coco_average_precision if single else None,
    )


def _in_words(group: str) -> str:
    words = {
        "ovule_1135": "Arabidopsis ovule nuclei (go-nuclear)",
        "nuclei_75": "nuclei with sparse ground truth (plant-seg's nuclei_75)",
        "tissue sections": "DAPI in mouse tissue sections (Mahbod et al.), those numbered 2",
    }
    if group.startswith("Emb"):
        return f"mouse embryo {group} (BBBC050)"
    return words.get(group, group)


def grouped(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return one row for each group and method: scores averaged over stacks, cells added up."""
    groups: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in measurements:
        groups[row.group, row.method].append(row)
    return [
        {
            "group": group,
            "method": method,
            "stacks": len(rows),
            "status": rows[0].status,
            "scale": rows[0].scale,
            "smoke": rows[0].smoke,
            "sparse": rows[0].sparse,
            **{name: _mean([getattr(row, name) for row in rows]) for name in MEANS},
            "true_cells": sum(row.true_cells for row in rows),
            "predicted_cells": sum(row.predicted_cells for row in rows),
            "seconds": sum(row.seconds for row in rows),
            "commits": sorted({row.commit for row in rows}),
        }
        for (group, method), rows in groups.items()
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--only-baseline", action="store_true", help="do not run the models")
    arguments.add_argument("--only", nargs="+", metavar="WORD", help="names or groups of stacks")
    arguments.add_argument("--model", nargs="+", help="measure these models only")
    arguments.add_argument("--dry-run", action="store_true", help="print scores, write nothing")
    arguments.add_argument("--tune", choices=("nuclei", "membranes"), help="search the settings")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
