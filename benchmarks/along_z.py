"""What becomes of cells along z: docs/along_z.md.

    python benchmarks/along_z.py

Whether a network of single slices, shown a stack from three sides, cuts cells along z or leaves
gaps in them, on simulated stacks of ever fewer slices; and what is found in the middle slices of
stacks, from one to five, with the model that is taken where none is named.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from accuracy import model_options
from accuracy_stacks import SIMULATION_SEED, median_diameter, simulated_stack, stacks
from boxplots import PIECE, pieces_of
from numpy.typing import NDArray
from report import parser, table, write

import cellrt
from cellrt.errors import CellrtWarning
from cellrt.evaluation import evaluate
from cellrt.evaluation.cells import cell_overlaps
from cellrt.evaluation.overlap import overlap_table
from cellrt.runtime.preparation import DEFAULT, DEFAULT_2D

MODELS = ("nuclei-cellpose2d", "nuclei")
# Distance of slices in pixels.
Z_STEPS = (1.0, 2.0, 4.0, 6.0)
FEW = (1, 2, 3, 4, 5)
THIN = ("Emb04_t501", "Emb09_t501")
MOST_SPLIT = 0.02

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Cut:
    """A model on a simulated stack: true cells, those split along z, found ones, with gaps."""

    model: str
    z_step: float
    seed: int
    true_cells: int
    split: int
    found: int
    gaps: int
    ap50: float


@dataclass(frozen=True)
class Thin:
    """What is found in so many of a stack's middle slices."""

    stack: str
    slices: int
    found: int
    true_cells: int
    ap50: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--stacks", type=int, default=3, help="simulated, of each kind")
    count = arguments.parse_args().stacks
    warnings.simplefilter("ignore", CellrtWarning)
    cuts, thin = list(cut(count)), list(few_slices(count))
    figures = {"cuts": [asdict(row) for row in cuts], "few": [asdict(row) for row in thin]}
    write("along_z", "Cells along z", page(cuts, thin), figures)


def cut(count: int) -> Iterator[Cut]:
    """Each model on stacks with slices ever farther apart."""
    for name in MODELS:
        cells = cellrt.Segmenter(name)
        for z_step in Z_STEPS:
            for seed in range(SIMULATION_SEED, SIMULATION_SEED + count):
                image, truth = simulated_stack("nuclei", "typical", seed, z_step).load()
                told = {"diameter": median_diameter(truth, z_step), "anisotropy": z_step}
                labels = cells(image, **told).labels
                row = Cut(
                    name,
                    z_step,
                    seed,
                    int(truth.max()),
                    split_along_z(labels, truth, z_step),
                    int(labels.max()),
                    with_gaps(labels),
                    _ap50(labels, truth),
                )
                print(row, flush=True)
                yield row


def few_slices(count: int) -> Iterator[Thin]:
    """The middle slices of real stacks that no model was trained on, and of simulated ones."""
    simulated = (
        simulated_stack("nuclei", "typical", SIMULATION_SEED + number, 2.0)
        for number in range(count)
    )
    models = {True: cellrt.Segmenter(DEFAULT_2D), False: cellrt.Segmenter(DEFAULT)}
    for stack in (*(s for s in stacks() if s.name in THIN), *simulated):
        image, truth = stack.load()
        told, _ = model_options(stack, median_diameter(truth, stack.anisotropy))
        for slices in FEW:
            start = (len(image) - slices) // 2
            part = truth[start : start + slices]
            labels = models[slices == 1](image[start : start + slices], **told).labels
            cells = len(np.unique(part[part > 0]))
            row = Thin(stack.name, slices, int(labels.max()), cells, _ap50(labels, part))
            print(row, flush=True)
            yield row


def split_along_z(labels: Labels, truth: Labels, anisotropy: float) -> int:
    """How many true cells have two pieces that lie above each other rather than beside."""
    overlaps = cell_overlaps(overlap_table(labels, truth))
    pieces = defaultdict(list)
    for at in np.flatnonzero(pieces_of(overlaps)):
        found = overlaps.prediction_ids[overlaps.pair_prediction[at]]
        pieces[int(overlaps.pair_truth[at])].append(int(found))
    spacing = np.array([anisotropy, 1.0, 1.0])
    split = 0
    for found_cells in pieces.values():
        centres = [np.argwhere(labels == found).mean(axis=0) * spacing for found in found_cells]
        apart = [np.abs(a - b) for n, a in enumerate(centres) for b in centres[:n]]
        split += any(away[0] > max(away[1:]) for away in apart)
    return split


def with_gaps(labels: Labels) -> int:
    """How many found cells are missing in a slice between their first and their last one."""
    there = np.zeros((len(labels), int(labels.max()) + 1), bool)
    for z, plane in enumerate(labels):
        there[z, np.unique(plane)] = True
    spans = len(labels) - there.argmax(axis=0) - there[::-1].argmax(axis=0)
    return int((spans[1:] > there.sum(axis=0)[1:]).sum())


def _ap50(labels: Labels, truth: Labels) -> float:
    return float(evaluate(labels, truth, thresholds=(0.5,)).at(0.5).average_precision)


def page(cuts: list[Cut], thin: list[Thin]) -> str:
    """docs/along_z.md."""
    lines = []
    for model in MODELS:
        for z_step in Z_STEPS:
            rows = [row for row in cuts if (row.model, row.z_step) == (model, z_step)]
            true, split, found, gaps = (
                sum(getattr(row, name) for row in rows)
                for name in ("true_cells", "split", "found", "gaps")
            )
            share = f"{split} of {true} ({split / true:.1%})"
            ap50 = float(np.mean([row.ap50 for row in rows]))
            lines.append([model, f"{z_step:g}", share, f"{gaps} of {found}", f"{ap50:.3f}"])
    thin_lines = []
    for stack in dict.fromkeys(row.stack for row in thin):
        rows = [row for row in thin if row.stack == stack]
        thin_lines.append(
            [stack, *(f"{row.found} of {row.true_cells}, {row.ap50:.2f}" for row in rows)]
        )
    return f"""\
Simulated stacks (typical style, size of cells told) with slices so many pixels apart. A true cell
is split along z if two found cells that lie mostly in it, each {PIECE:.0%} of it or more, lie above
each other rather than beside; aimed at are at most {MOST_SPLIT:.0%} with `nuclei-cellpose2d`. A
found cell has a gap if it is missing in a slice between its first and its last one.

{table(["model", "distance of slices", "split along z", "cells with gaps", "AP50"], lines)}

The middle slices of a stack by themselves, with the model that is taken where none is named: cells
found of those that are there, and AP50.

{table(["stack", *(f"{n} slices" if n > 1 else "1 slice" for n in FEW)], thin_lines)}
"""


if __name__ == "__main__":
    main()
