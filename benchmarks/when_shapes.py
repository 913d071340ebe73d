"""Where networks of shapes find nuclei better than flows do, and where not.

    python benchmarks/when_shapes.py
    python benchmarks/when_shapes.py --only photons    # sweeps whose name has this; prints only

Simulated nuclei, of which one thing changes at a time, and the embryos that no model was trained
on, whole and by kinds of cells. Writes docs/when_shapes.md, .json and .png. About 8 minutes.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from accuracy_stacks import SIMULATION_SEED, LabelledStack, stacks
from boxplots import METHODS, results
from numpy.typing import NDArray
from report import DOCS, parser, table, write
from when_shapes_plot import draw

import cellrt
from cellrt.evaluation.cells import best_matches, cell_overlaps
from cellrt.evaluation.overlap import overlap_table
from cellrt.evaluation.scores import Scores
from cellrt.runtime.model.file import bundled_models
from cellrt.simulation import ImagingParameters, NucleiParameters, simulate_nuclei

STACKS = 3
SHAPE = (64, 128, 128)
EMBRYOS = ("Emb04", "Emb09")
RANDOM = "simulated nuclei (random)"
CHOSEN = ("Cellpose3D", "HarmonicNet", "HarmonicNet, fit", "StarDist", "StarDist, fit")
FLOWS = CHOSEN[0]
# What counts as better or worse: an AP50 that differs by so much.
NOTABLE = 0.05
# So many levels are named, more are counted.
NAMED = 8


@dataclass(frozen=True)
class Sweep:
    """One thing about nuclei or the microscope that changes.

    Parameters
    ----------
    title, axis : str
        What the figure says.
    levels : tuple of float
    nuclei, imaging : tuple of str
        Fields of `NucleiParameters` and `ImagingParameters` that are the level.
    fixed : mapping of str
        Fields of `NucleiParameters` that differ from those of a typical stack.
    z_step : bool
        The level is the distance between slices, in pixels.
    """

    title: str
    axis: str
    levels: tuple[float, ...]
    nuclei: tuple[str, ...] = ()
    imaging: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    z_step: bool = False

    def stack(self, level: float, number: int) -> LabelledStack:
        """One stack of a level."""
        step = level if self.z_step else 1.0

        def load() -> tuple[NDArray[Any], NDArray[Any]]:
            made = simulate_nuclei(
                (round(SHAPE[0] / step), *SHAPE[1:]),
                voxel_size_um=(step, 1.0, 1.0),
                nuclei=NucleiParameters(**{**self.fixed, **dict.fromkeys(self.nuclei, level)}),
                imaging=ImagingParameters(**dict.fromkeys(self.imaging, level)),
                seed=SIMULATION_SEED + 100 + number,
            )
            return made.image, made.labels

        return LabelledStack(
            f"{self.title} {level:g}, {number}", self.title, "nuclei", load, anisotropy=step
        )


DENSE = {"arrangement": "dense", "filling": 0.4, "gap_voxels": 0.0}
SWEEPS = (
    Sweep("photons", "photons in a voxel of a nucleus", (1, 2, 4, 10, 40, 150), (), ("photons",)),
    Sweep("blur", "blur in the plane, voxels", (0.5, 1, 1.5, 2, 3), (), ("blur_xy_voxels",)),
    Sweep(
        "touching", "centre distance / sum of radii", (1.05, 0.95, 0.85, 0.75, 0.65),
        ("contact",), fixed=DENSE,
    ),
    Sweep("slices", "slice distance / pixel", (1, 2, 3, 4, 6), z_step=True),
    Sweep("elongation", "longest / shortest axis", (1, 1.4, 2, 3), ("elongation",)),
    Sweep("bumps", "roughness of the surface", (0, 0.06, 0.12, 0.2), ("roughness",)),
    Sweep("dark inside", "brightness inside / rim", (1, 0.6, 0.3, 0.1), ("core",),
          fixed={"rim": 0.0}),
    Sweep("texture", "texture of the stain", (0, 0.2, 0.4, 0.8), ("texture",)),
)  # fmt: skip

# Of each cell: what a kind of cells is told by.
PROPERTIES = ("touching share", "brightness", "volume", "elongation")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", metavar="WORD", help="print these sweeps only")
    options.add_argument("--stacks", type=int, default=STACKS, help="of each level")
    arguments = options.parse_args()
    swept = [
        row
        for sweep in SWEEPS
        if not arguments.only or any(word in sweep.title for word in arguments.only)
        for level in sweep.levels
        for row in measured(
            [sweep.stack(level, number) for number in range(arguments.stacks)], level
        )[0]
    ]
    if arguments.only:
        return
    here = stacks()
    real, kinds = [], []
    for name in (*EMBRYOS, RANDOM):
        rows, cells = measured([stack for stack in here if stack.group == name])
        real += rows
        kinds += by_kind(name, cells)
    draw(SWEEPS, swept, DOCS / "when_shapes.png")
    figures = {"sweeps": swept, "stacks": real, "kinds": kinds}
    write("when_shapes", "When shapes are better", document(figures, arguments.stacks), figures)


def measured(
    chosen: Sequence[LabelledStack], level: float | None = None
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float64]]]:
    """Mean scores of the methods on some stacks, and properties and Dice of all their cells."""
    methods = [method for method in METHODS["nuclei"] if method.name in CHOSEN]
    models = {name: name for name in bundled_models()}
    scores: dict[str, list[Scores]] = defaultdict(list)
    cells: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for stack in chosen:
        image, truth = stack.load()
        for name, values in properties(image, truth, stack.anisotropy).items():
            cells[name].append(values)
        for method, _, labels in results(stack, image, truth, methods, models):
            scores[method.name].append(cellrt.evaluate(labels, truth, thresholds=(0.5, 0.75)))
            cells[method.name].append(
                best_matches(cell_overlaps(overlap_table(labels, truth))).dice
            )
    rows = [
        {
            "group": chosen[0].group,
            "level": level,
            "method": name,
            "stacks": len(chosen),
            "ap50": statistics.fmean(each.at(0.5).average_precision for each in found),
            "ap75": statistics.fmean(each.at(0.75).average_precision for each in found),
            "mean_dice": statistics.fmean(each.mean_dice for each in found),
            "true": sum(each.true_cells for each in found),
            "found": sum(each.predicted_cells for each in found),
        }
        for name, found in scores.items()
    ]
    for row in rows:
        print({key: value for key, value in row.items() if key != "stacks"}, flush=True)
    return rows, {name: np.concatenate(parts) for name, parts in cells.items()}


def properties(
    image: NDArray[Any], truth: NDArray[Any], anisotropy: float
) -> dict[str, NDArray[np.float64]]:
    """Of each true cell, in order of its label.

    The share of its surface, seen along the three axes, behind which another cell lies; brightness
    above the background, and volume, beside the stack's median cell; and the ratio of the longest
    to the shortest axis of its moments.
    """
    ids, labels = np.unique(truth, return_inverse=True)
    labels = labels.reshape(truth.shape)
    count = len(ids)
    outer, inner = np.zeros(count), np.zeros(count)
    for axis, area in enumerate((1.0, anisotropy, anisotropy)):
        a, b = (np.moveaxis(labels, axis, 0)[part].ravel() for part in (slice(1, None), slice(-1)))
        for one, other in ((a, b), (b, a)):
            face = one != other
            outer += area * np.bincount(one[face], minlength=count)
            face &= other > 0
            inner += area * np.bincount(one[face], minlength=count)
    volume = np.bincount(labels.ravel(), minlength=count).astype(float)
    grey = np.bincount(labels.ravel(), image.ravel().astype(float), minlength=count) / volume
    bright = grey - np.median(image[truth == 0])
    places = np.indices(truth.shape).reshape(3, -1) * np.array([[anisotropy], [1.0], [1.0]])
    flat = labels.ravel()
    means = [np.bincount(flat, axis, minlength=count) / volume for axis in places]
    moments = np.empty((count, 3, 3))
    for i in range(3):
        for j in range(3):
            product = np.bincount(flat, places[i] * places[j], minlength=count) / volume
            moments[:, i, j] = product - means[i] * means[j]
    # That of a voxel keeps flat cells of one slice from having none.
    moments += np.diag([anisotropy**2, 1.0, 1.0]) / 12
    axes = np.sqrt(np.linalg.eigvalsh(moments))
    cells = slice(1 if ids[0] == 0 else 0, None)
    values = (
        inner / np.maximum(outer, 1.0),
        bright / np.median(bright[cells]),
        volume / np.median(volume[cells]),
        axes[:, 2] / axes[:, 0],
    )
    return {name: each[cells] for name, each in zip(PROPERTIES, values, strict=True)}


def by_kind(group: str, cells: Mapping[str, NDArray[np.float64]]) -> Iterator[dict[str, Any]]:
    """Share of the true cells that each method finds at IoU 0.5, by thirds of a property."""
    for name in PROPERTIES:
        third = np.searchsorted(np.quantile(cells[name], [1 / 3, 2 / 3]), cells[name])
        for number, word in enumerate(("least", "middle", "most")):
            chosen = third == number
            if not chosen.any():  # of what most cells have none
                continue
            yield {
                "group": group,
                "property": name,
                "third": word,
                "cells": int(chosen.sum()),
                "median": float(np.median(cells[name][chosen])),
                # Two thirds of Dice are half of IoU.
                **{method: float((cells[method][chosen] > 2 / 3).mean()) for method in CHOSEN},
            }


def document(figures: Mapping[str, Sequence[Mapping[str, Any]]], count: int) -> str:
    """Return docs/when_shapes.md."""
    swept = [
        [sweep.title, f"{level:g}", found[FLOWS]["true"], *_scores(found, ("ap50", "mean_dice"))]
        for sweep in SWEEPS
        for level in sweep.levels
        for found in [_by_method(figures["sweeps"], sweep.title, level)]
    ]
    real = [
        [name, found[FLOWS]["stacks"], found[FLOWS]["true"], *_scores(found, ("ap50", "ap75"))]
        for name in (*EMBRYOS, RANDOM)
        for found in [_by_method(figures["stacks"], name, None)]
    ]
    kinds = [
        [
            row["group"],
            row["property"],
            f"{row['third']} ({row['median']:.2f})",
            row["cells"],
            *(f"{row[name]:.2f}" for name in CHOSEN),
        ]
        for row in figures["kinds"]
    ]
    verdicts = "\n".join(f"- {name}: {_verdict(figures['sweeps'], name)}" for name in CHOSEN[1:])
    return f"""\
The bundled models: flows (`nuclei`, here *Cellpose3D*), `nuclei-harmonicnet` and `nuclei-stardist`,
as they come and with `--fit`. They were trained for different times, which shows beside what they
are; none was trained on anything here, nor was anything chosen by these figures.

![AP at IoU 0.5 of the methods, over what changes](when_shapes.png)

{count} stacks of {SHAPE} voxels at each level, or fewer slices of the same depth, with nuclei of
16 voxels as `cellrt simulate nuclei` draws them, but for what changes. Models are told the diameter
and the distance of slices. Cells: AP50 / mean Dice. AP50 that differs from that of flows by {
        NOTABLE:g} or more:

{verdicts}

{table(("sweep", "level", "cells", *CHOSEN), swept)}
## Embryos that were held back, and stacks of random styles

AP50 / AP75. Embryos are told their voxel size, simulations the diameter, as in
[accuracy](accuracy.md).

{table(("stacks", "n", "cells", *CHOSEN), real)}
## Which cells

Share of the true cells that some predicted cell meets with an IoU above 0.5, by thirds of the cells
of each group; in brackets the third's median. Touching share: of a cell's surface, behind which
another cell lies. Brightness above the background, and volume: beside the stack's median cell.
Elongation: longest to shortest axis. Where a third has 40 cells, differences up to 0.1 may be
chance, and up to 0.04 where it has 300.

{table(("stacks", "property", "third", "cells", *CHOSEN), kinds)}"""


def _by_method(
    rows: Sequence[Mapping[str, Any]], group: str, level: float | None
) -> dict[str, Mapping[str, Any]]:
    return {row["method"]: row for row in rows if (row["group"], row["level"]) == (group, level)}


def _scores(found: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    return [" / ".join(f"{found[method][name]:.3f}" for name in names) for method in CHOSEN]


def _verdict(rows: Sequence[Mapping[str, Any]], method: str) -> str:
    """Where a method is better than flows, and where worse, in words."""
    gains = {
        f"{sweep.title} {level:g}": found[method]["ap50"] - found[FLOWS]["ap50"]
        for sweep in SWEEPS
        for level in sweep.levels
        for found in [_by_method(rows, sweep.title, level)]
    }
    better = {name: gain for name, gain in gains.items() if gain >= NOTABLE}
    worse = {name: gain for name, gain in gains.items() if gain <= -NOTABLE}
    return f"better at {_levels(better)}; worse at {_levels(worse)}, of {len(gains)} levels"


def _levels(gains: Mapping[str, float]) -> str:
    if len(gains) > NAMED:
        return f"{len(gains)} (by {statistics.fmean(gains.values()):+.2f} in the mean)"
    return ", ".join(f"{name} ({gain:+.2f})" for name, gain in gains.items()) or "none"


if __name__ == "__main__":
    main()
