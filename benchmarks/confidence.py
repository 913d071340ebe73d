"""How far the confidence of cells and the expected quality of stacks can be trusted.

    python benchmarks/confidence.py                      # docs/confidence.md, every bundled model
    python benchmarks/confidence.py --fit nuclei         # fit it anew, and write it into the model

It is fitted on the stacks that `threshold.py` chooses parameters with, undisturbed and after every
accident of `accidents.py`, and on images of other worlds: another stain, another scale, noise,
defocus, saturation, empty wells. It is measured on stacks that are held back, with other accidents.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from accuracy import training_records
from accuracy_stacks import images, stacks
from bundled import models_of_images, models_of_stacks
from confidence_plot import draw
from confidence_scenes import SEED, Scene, scenes, simulated
from report import DOCS, parser, table, write
from robustness import UNDISTURBED, unseen
from threshold import chosen

import cellrt
from cellrt.errors import CellrtError, CellrtWarning
from cellrt.evaluation.confidence import calibration_error, fit_confidence, judge_stack
from cellrt.graph.file import embed_card, write_graph
from cellrt.runtime.decoding.classes.decoder import ClassMapDecoder
from cellrt.runtime.decoding.embedding.decoder import EmbeddingDecoder
from cellrt.runtime.decoding.flows import cells as flow_cells
from cellrt.runtime.decoding.star.decoder import StarDecoder
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.file import bundled_models
from cellrt.simulation.styles import simulate_style

COST_SHAPE, COST_TILES, COST_REPEATS = (96, 160, 160), (6, 6), 3
# What computes evidence and nothing else.
EVIDENCE: tuple[tuple[Any, str], ...] = (
    (flow_cells, "_doubts"),
    (ClassMapDecoder, "_evidence"),
    (StarDecoder, "_evidence"),
    (EmbeddingDecoder, "_evidence"),
)
DOUBTS = ("few of these cells", "no cells were found")
# Of each group of real stacks, how many are measured.
PER_GROUP = 3
# Simulated stacks beside those that `threshold.py` has.
MORE_STACKS = 12


@dataclass(frozen=True)
class Row:
    """What was expected of a scene, and what came."""

    stack: str
    accident: str
    inside: bool
    real: bool
    expected_ap50: float | None  # None: no cells were found
    ap50: float
    confidence: list[float]
    right: list[bool]
    judge_seconds: float
    seconds: float
    warned: bool

    @property
    def expected(self) -> float:
        """Nothing is expected of a stack in which no cells were found."""
        return 0.0 if self.expected_ap50 is None else self.expected_ap50


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--fit", nargs="+", metavar="MODEL", help="bundled models, or files")
    arguments.add_argument("--only", nargs="+", metavar="MODEL", help="measure these models only")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", CellrtWarning)
    if options.fit:
        for name in options.fit:
            fit(name)
        return
    named = options.only or bundled_models()
    names = [name for name in named if cellrt.load_model(name).card.confidence]
    rows: dict[str, list[Row]] = {}
    for name in names:
        cells = cellrt.Segmenter(name)
        rows[name] = [row(cells, scene) for scene in measured(name)]
    text = document(rows) + "\n" + costs(names)
    draw(rows, DOCS / "confidence.png")
    figures = {name: [_of_stack(r) for r in found] for name, found in rows.items()}
    write("confidence", "Confidence", text + "\n![](confidence.png)\n", figures)


def _of_stack(row: Row) -> dict[str, Any]:
    """What the page's file keeps of a scene: counts in place of the cells, which are thousands."""
    values = asdict(row)
    right = values.pop("right")
    del values["confidence"]
    return {**values, "cells": len(right), "right_cells": sum(right)}


def fit(name: str) -> None:
    """Fit the confidence of a model, and write it into the model's file."""
    model = cellrt.load_model(name)
    cells = cellrt.Segmenter(model)
    judged = []
    for scene in scenes(
        [*chosen(model.card), *simulated(model.card, SEED, MORE_STACKS)], model.card, "fit"
    ):
        result = run(cells, scene)
        if result is not None:
            judged.append(judge_stack(result, scene.truth, ignore_unlabelled=scene.sparse))
            print(
                f"{scene.stack:28} {scene.accident[:44]:44} AP50 {judged[-1].ap50:.3f}", flush=True
            )
    data = (
        f"{len(judged)} stacks that neither trained the model nor are scored, most of them after "
        "an accident or of another world; benchmarks/confidence.py"
    )
    found = fit_confidence(model.card.decoder, judged, data)
    print(found)
    graph = onnx.load(model.path)
    embed_card(graph, replace(model.card, confidence=found))
    write_graph(graph, model.path)


def measured(name: str) -> Iterator[Scene]:
    """Scenes of stacks that are held back."""
    card = cellrt.load_model(name).card
    if card.planar:
        found, records, most = images(), training_records(models_of_images()), sys.maxsize
    else:
        found, records, most = stacks(), training_records(models_of_stacks()), PER_GROUP
    held_back = [
        stack
        for stack in unseen(found, records, per_group=most)
        if stack.model == card.target and stack.files
    ]
    yield from scenes([*held_back, *simulated(card, SEED + 100, MORE_STACKS)], card, "measure")


def run(cells: cellrt.Segmenter, scene: Scene) -> Any:
    """Segment a scene; None where the image is refused."""
    try:
        return cells(scene.image, **scene.options)
    except CellrtError:
        return None


def row(cells: cellrt.Segmenter, scene: Scene) -> Row:
    """Judge a scene and compare with its truth."""
    start = time.perf_counter()
    result = run(cells, scene)
    seconds = time.perf_counter() - start
    judged = judge_stack(result, scene.truth, ignore_unlabelled=scene.sparse)
    found = Row(
        scene.stack,
        scene.accident,
        scene.inside,
        scene.real,
        result.record["quality"]["expected_ap50"],
        judged.ap50,
        judged.cells["confidence"].tolist(),
        judged.right.tolist(),
        result.record["seconds"]["judge"],
        seconds,
        any(text.startswith(DOUBTS) for text in result.warnings),
    )
    print(
        f"{found.stack:24} {found.accident[:44]:44} expected {found.expected:.2f} "
        f"AP50 {found.ap50:.2f} {'' if found.inside else 'outside '}{'W' * found.warned}",
        flush=True,
    )
    return found


def document(rows: dict[str, list[Row]]) -> str:
    """The page's table."""
    lines = []
    for name, found in rows.items():
        own = [r for r in found if r.inside]
        real = [r for r in own if r.real]
        told = [r for r in found if r.expected_ap50 is not None]
        near = [abs(r.expected - r.ap50) <= 0.1 for r in told]
        lines.append(
            (
                Path(name).stem,
                _calibration([r for r in real if r.accident == UNDISTURBED.name]),
                _calibration(real),
                _calibration(own),
                f"{statistics.fmean(near):.2f} of {len(near)}",
                f"{statistics.fmean(n for n, r in zip(near, told, strict=True) if r.inside):.2f}",
                f"{area_under_curve(found):.3f}",
                f"{statistics.fmean(r.warned for r in own):.2f}",
                f"{statistics.fmean(r.warned for r in found if not r.inside):.2f}",
            )
        )
    header = (
        "model",
        "calibration error, real stacks",
        "and after accidents",
        "and simulated",
        "expected AP50 within 0.1",
        "of its world",
        "world from outside, AUROC",
        "warned inside",
        "warned outside",
    )
    names = {r.stack for found in rows.values() for r in found if r.real}
    single = {stack.name for stack in images()} & names
    real_stacks = ", ".join(sorted(names - single)) or "none"
    if single:
        real_stacks += f", and {len(single)} single images of DSB 2018 and of tissue sections"
    return (
        "`confidence` in the table of cells is the probability that a cell matches a true one at "
        "an IoU of 0.5; the run record's `expected_ap50` is the average precision to be expected. "
        "Below: the expected calibration error (10 bins), how often the expected AP50 is within "
        "0.1 of the true one, and how well it separates stacks of the model's world, accidents "
        "included, from others: another stain, another size, defocus, noise, saturation. Real "
        f"stacks and images are {real_stacks}. Models that are not here were not measured, or have "
        "no confidence.\n\n" + table(header, lines)
    )


def costs(names: Sequence[str]) -> str:
    """What confidence and verdict cost, as a share of the whole run."""
    lines = []
    for name in names:
        model = cellrt.load_model(name)
        image = _cost_image(model.card)
        cells = cellrt.Segmenter(model)
        told: dict[str, Any] = {"diameter": model.card.diameter_voxels}
        told |= {} if model.card.planar else {"anisotropy": 1.0}
        cells(image, **told)
        shares = []
        for _ in range(COST_REPEATS):
            with _timed() as spent:
                start = time.perf_counter()
                result = cells(image, **told)
                whole = time.perf_counter() - start
            shares.append((sum(spent) + result.record["seconds"]["judge"]) / whole)
        lines.append([Path(name).stem, f"{min(shares):.1%} to {max(shares):.1%}"])
    return (
        f"Beside what the decoder computes anyway, that takes of a run over {COST_SHAPE} voxels, "
        f"or over an image of 960 x 960 pixels ({COST_REPEATS} times; target: at most 5 %):\n\n"
        + table(("model", "share of the run"), lines)
    )


def _cost_image(card: ModelCard) -> Any:
    """A simulated stack, or its middle slice many times over."""
    image = simulate_style(card.target, seed=SEED, shape=COST_SHAPE).image
    middle = len(image) // 2
    return np.tile(image[middle : middle + 1], (1, *COST_TILES)) if card.planar else image


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Seconds that decoders spend on evidence, and for nothing else."""
    spent: list[float] = []

    def timed(compute: Any) -> Any:
        def run_it(*arguments: Any) -> Any:
            start = time.perf_counter()
            found = compute(*arguments)
            spent.append(time.perf_counter() - start)
            return found

        return run_it

    with ExitStack() as patches:
        for owner, attribute in EVIDENCE:
            found = timed(getattr(owner, attribute))
            patches.enter_context(mock.patch.object(owner, attribute, found))
        yield spent


def _calibration(rows: list[Row]) -> str:
    """Expected calibration error over all cells, and of how many."""
    confidence = np.array([c for r in rows for c in r.confidence], float)
    right = np.array([h for r in rows for h in r.right], bool)
    if not len(right):
        return "-"
    return f"{calibration_error(confidence, right):.3f} of {len(right)} cells"


def area_under_curve(rows: list[Row]) -> float:
    """Chance that a stack of the model's world is expected to be better than one outside of it."""
    inside = np.array([r.expected for r in rows if r.inside])
    outside = np.array([r.expected for r in rows if not r.inside])
    above = inside[:, None] - outside[None]
    return float((above > 0).mean() + (above == 0).mean() / 2)


if __name__ == "__main__":
    main()
