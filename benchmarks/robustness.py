"""What ordinary accidents of a microscope leave of the accuracy: docs/robustness.md and .png.

    python benchmarks/robustness.py                        # all models and the baselines, hours
    python benchmarks/robustness.py --only Emb09 "typical 900004"   # stacks and accidents with
                                                           # these words; the page says which

Stacks are those of `accuracy.py` that the model has not seen. Each accident is drawn once per
stack with a seed of its own, so that all methods see the same. Baselines are Otsu's threshold with
a watershed, and each network behind what Cellpose normalises with: the 1st and 99th percentile of
the image become 0 and 1.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from accidents import ACCIDENTS, Accident, Image
from accuracy import model_options, training_records
from accuracy_stacks import LabelledStack, median_diameter, stacks
from bundled import models_of_stacks
from report import DOCS, parser, table, write
from watershed_baseline import segment_membranes, segment_nuclei

import cellrt
from cellrt.evaluation import evaluate
from cellrt.runtime.model.card_parts import Normalisation

BASELINE = "Otsu + watershed"
UNDISTURBED = Accident("undisturbed", lambda image, labels, rng: (image, labels))
# After a model's name: the same network behind percentiles.
PERCENTILES = " behind percentiles"
# Of each group of stacks, how many are disturbed.
PER_GROUP = 2


Segment = Callable[[LabelledStack, Image, float], tuple[Image, int]]


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
    options.add_argument("--only", nargs="*", default=[], help="words of stacks")
    options.add_argument("--accidents", nargs="*", default=[], help="words of accidents")
    options.add_argument("--no-baseline", action="store_true")
    arguments = options.parse_args()
    records = training_records(models_of_stacks())
    models = arguments.model or list(records)
    methods = _methods(models, baselines=not arguments.no_baseline)
    rows: list[Row] = []
    targets = {target for target, _ in methods.values()}
    for stack in unseen(stacks(), records):
        if not _named(stack.name, arguments.only) or targets.isdisjoint((None, stack.model)):
            continue
        image, labels = stack.load()
        for accident in (UNDISTURBED, *ACCIDENTS):
            if accident is not UNDISTURBED and not _named(accident.name, arguments.accidents):
                continue
            # What is not labelled may be a cell, and no background.
            if accident.background and (labels.all() or stack.sparse):
                continue
            text = f"{stack.name} {accident.name}".lower()
            rng = np.random.default_rng(zlib.crc32(text.encode()))
            changed, truth = accident.play(image, labels, rng)
            for method, (target, segment) in methods.items():
                if target in (None, stack.model):
                    rows.append(_row(stack, accident, method, segment, changed, truth))
                    print(_line(rows[-1]), flush=True)
    text = document(rows)
    if arguments.accidents:
        print(text)
        return
    draw(rows)
    page = f"{text}\n![The same as a figure](robustness.png)\n"
    write("robustness", "Robustness", page, [asdict(row) for row in rows])


def _named(name: str, words: Sequence[str]) -> bool:
    return not words or any(word.lower() in name.lower() for word in words)


def _methods(models: Sequence[str], *, baselines: bool) -> dict[str, tuple[str | None, Segment]]:
    """What is compared, by name: what it is for (None: everything), and how it segments."""
    methods: dict[str, tuple[str | None, Segment]] = {}
    for name in models:
        model = cellrt.load_model(name)
        card = model.card
        methods[name] = card.target, _by_model(cellrt.Segmenter(model))
        if baselines:
            behind = replace(model, card=replace(card, normalisation=Normalisation(1.0, 99.0)))
            methods[name + PERCENTILES] = card.target, _by_model(cellrt.Segmenter(behind))
    if baselines:
        methods[BASELINE] = None, _by_otsu
    return methods


def _by_model(cells: cellrt.Segmenter) -> Segment:
    def segment(stack: LabelledStack, image: Image, diameter: float) -> tuple[Image, int]:
        options, _ = model_options(stack, diameter)
        result = cells(image, **options)
        return result.labels, len(result.warnings)

    return segment


def _by_otsu(stack: LabelledStack, image: Image, diameter: float) -> tuple[Image, int]:
    baseline = segment_nuclei if stack.model == "nuclei" else segment_membranes
    return baseline(image, diameter=diameter, anisotropy=stack.anisotropy), 0


def unseen(
    found: Sequence[LabelledStack], records: dict[str, Any], *, per_group: int = PER_GROUP
) -> list[LabelledStack]:
    """The last stacks of every group that no model was trained on."""
    groups: dict[str, list[LabelledStack]] = defaultdict(list)
    for stack in found:
        status = {r.status(stack) for r in records.values() if r.target == stack.model}
        if "seen" in status or "checked" in status or stack.smoke:
            continue
        # What is not scored was trained on, and accidents move voxels.
        if any(part != slice(None) for part in stack.scored):
            continue
        groups[stack.group].append(stack)
    # Later times of an embryo have more cells.
    return [stack for group in groups.values() for stack in group[-per_group:]]


def _row(
    stack: LabelledStack,
    accident: Accident,
    method: str,
    segment: Segment,
    image: Image,
    truth: Image,
) -> Row:
    start = time.perf_counter()
    labels, warnings = segment(stack, image, median_diameter(truth, stack.anisotropy))
    seconds = time.perf_counter() - start
    scores = evaluate(labels, truth, ignore_unlabelled=stack.sparse, thresholds=(0.5,))
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


def _line(row: Row) -> str:
    return (
        f"{row.stack:24} {row.accident[:44]:44} {_short(row.method):32} AP50 {row.ap50:.3f} "
        f"{row.found}/{row.true} w{row.warnings} {row.seconds:.1f} s"
    )


def _short(method: str) -> str:
    """A method's name without the folder of a model's file."""
    return method.rpartition("/")[2].replace(".onnx", "")


def shares(rows: Sequence[Row], accident: str, method: str) -> list[float]:
    """Share of the undisturbed AP50 that an accident leaves, for each stack that had any."""
    whole = {
        row.stack: row.ap50
        for row in rows
        if row.accident == UNDISTURBED.name and row.method == method and row.ap50 > 0
    }
    return [
        row.ap50 / whole[row.stack]
        for row in rows
        if (row.accident, row.method) == (accident, method) and row.stack in whole
    ]


def document(rows: Sequence[Row]) -> str:
    """The table: share of the undisturbed AP50 that is left, mean over stacks."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = []
    for name in dict.fromkeys(row.accident for row in rows):
        cells = []
        for method in methods:
            if name == UNDISTURBED.name:
                of_method = [r.ap50 for r in rows if (r.accident, r.method) == (name, method)]
                cells.append(f"{statistics.fmean(of_method):.3f}")
            else:
                found = shares(rows, name, method)
                cells.append(f"{statistics.fmean(found):.2f}" if found else "-")
        lines.append((name + " (AP50)" * (name == UNDISTURBED.name), *cells))
    of_method = [
        f"{_short(m)}: {', '.join(dict.fromkeys(r.stack for r in rows if r.method == m))}"
        for m in methods
    ]
    header = ("accident", *map(_short, methods))
    return (
        "Share of the undisturbed AP50 that is left after an accident, mean over stacks that the "
        f"model has not seen. {'; '.join(of_method)}.\n\n" + table(header, lines)
    )


def draw(rows: Sequence[Row]) -> None:
    """One line per accident, one dot per method: the mean share that is left."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [n for n in dict.fromkeys(r.accident for r in rows) if n != UNDISTURBED.name]
    methods = list(dict.fromkeys(row.method for row in rows))
    figure, axis = plt.subplots(figsize=(9, 1.5 + 0.3 * len(names)), layout="constrained")
    axis.axvline(0.9, color="#cccccc", zorder=0)
    colours = iter(("#0b6e4f", "#7b4fa3", "#2a6fb0", "#b03a2e", "#5d8a2a", "#1f2d5a"))
    model = ""
    for method in methods:
        baseline = method == BASELINE
        behind = method.endswith(PERCENTILES)
        if not behind:
            model = "#c8a15a" if baseline else next(colours)
        means = [statistics.fmean(shares(rows, name, method) or [float("nan")]) for name in names]
        face = "white" if behind else model
        axis.scatter(
            means, range(len(names)), 28, facecolor=face, edgecolor=model, label=_short(method),
            marker="s" if baseline else "o", zorder=2 if baseline or behind else 3,
        )  # fmt: skip
    axis.set(xlabel="share of the undisturbed AP at IoU 0.5", xlim=(-0.03, 1.2))
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="y", color="#eeeeee")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(DOCS / "robustness.png", dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
