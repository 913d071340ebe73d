"""All methods on simulated nuclei in the HarmonicNet paper's setting, on embryos and dense tissue.

    python benchmarks/boxplots.py
    python benchmarks/boxplots.py --model nuclei-stardist=runs/nuclei-stardist.onnx
    python benchmarks/boxplots.py --only plant          # settings whose name has this; prints only

Writes docs/boxplots.md, .json and .png: the paper's Figure 4 with what Figure 3 of the Cellpose3D
paper compares, slices seen from three sides, beside two ways to fill shapes.
Models that are not bundled are files that `--model` names; methods whose model is not here are
left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from accuracy import model_options
from accuracy_page import STATUS
from accuracy_stacks import SIMULATION_SEED, LabelledStack, TrainingRecord, median_diameter, stacks
from boxplots_plot import draw
from filling import filled
from numpy.typing import NDArray
from report import DOCS, parser, table, write
from watershed_baseline import MEMBRANES, NUCLEI, WatershedSettings

import cellrt
from cellrt.evaluation.cells import CellOverlaps, best_matches, cell_overlaps
from cellrt.evaluation.overlap import overlap_table
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Decoder, Family, Outputs, WholeCollector
from cellrt.runtime.decoding.classes.baselines import WatershedParameters, decode_watershed
from cellrt.runtime.decoding.classes.class_map import BACKGROUND, FOREGROUND
from cellrt.runtime.decoding.classes.decoder import ClassMapDecoder
from cellrt.runtime.decoding.registry import register_family
from cellrt.runtime.decoding.star.directions import FEWER
from cellrt.runtime.model.card import FLOW_OUTPUTS
from cellrt.runtime.model.file import VIEWS_2D, bundled_models

STACKS = 3
PAPER = "simulated nuclei, the paper's setting"
SETTINGS = {
    PAPER: "",
    "mouse embryo Emb04, held back": "Emb04",
    "mouse embryo Emb09, held back": "Emb09",
    "simulated tissue": "simulated membranes (typical)",
    "simulated tissue, random styles": "simulated membranes (random)",
    "plant tissue, held back": "plant_patch x >= 140",
}
# A piece of a cell counts where it is as large as this share of it.
PIECE = 0.1
# What the network's foreground map must be for a voxel to be flooded.
FOREGROUND_THRESHOLD = 0.5


class Method(NamedTuple):
    """A model, a decoder (its own by default) and what differs from the model's parameters."""

    name: str
    model: str
    decoder: str | None = None
    changes: Mapping[str, Any] = {}


DELAUNAY = {"fit": False, "fill": "delaunay"}
METHODS = {
    "nuclei": (
        Method("Cellpose3D", "nuclei"),
        Method("Cellpose2D, three views", VIEWS_2D),
        Method("HarmonicNet", "nuclei-harmonicnet", None, {"fit": False}),
        Method("HarmonicNet, fit", "nuclei-harmonicnet", None, {"fit": True}),
        Method("HarmonicNet, Delaunay", "nuclei-harmonicnet", None, DELAUNAY),
        Method("StarDist", "nuclei-stardist", None, {"fit": False}),
        Method("StarDist, fit", "nuclei-stardist", None, {"fit": True}),
        Method("U-Net + watershed", "nuclei", "foreground_watershed"),
    ),
    "membranes": (
        Method("Cellpose3D", "membranes"),
        Method("HarmonicNet", "membranes-harmonicnet", None, {"fit": False}),
        Method("HarmonicNet, fit", "membranes-harmonicnet", None, {"fit": True}),
        Method("HarmonicNet, Delaunay", "membranes-harmonicnet", None, DELAUNAY),
        Method("3DCellSeg", "membranes-3dcellseg"),
        Method("3DCellSegNet + watershed", "membranes-3dcellseg", "watershed"),
    ),
}


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of the true cells of one stack.

    Attributes
    ----------
    dice : ndarray of float64
        Of each true cell with its best match.
    missed : int
        No predicted cell holds most of it, or lies mostly in it.
    split : int
        Several predicted cells lie mostly in it.
    merged : int
        A predicted cell holds most of it and of another one.
    found : int
        Predicted cells.
    """

    dice: NDArray[np.float64]
    missed: int
    split: int
    merged: int
    found: int


@dataclass
class Row:
    """One method in one setting."""

    setting: str
    method: str
    model: str
    status: str
    stacks: list[Judged] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """What the page and its JSON say."""
        dice = np.concatenate([stack.dice for stack in self.stacks])
        low, median, high = np.percentile(dice, [25, 50, 75])
        return {
            "setting": self.setting,
            "method": self.method,
            "model": self.model,
            "status": self.status,
            "stack_means": [float(stack.dice.mean()) for stack in self.stacks],
            "quartiles": [float(low), float(median), float(high)],
            "cells": dice.size,
            **{
                name: sum(getattr(stack, name) for stack in self.stacks)
                for name in ("found", "missed", "split", "merged")
            },
        }


class ForegroundDecoder(ClassMapDecoder):
    """Floods the foreground map of a network that predicts flows too."""

    def collector(self, shape: Shape) -> WholeCollector:
        """Keep what is foreground."""
        return WholeCollector(np.empty(shape, np.uint8), _keep_foreground)


def _keep_foreground(kept: NDArray[Any], fields: NDArray[np.float32]) -> None:
    kept[...] = np.where(fields[3] > FOREGROUND_THRESHOLD, FOREGROUND, BACKGROUND)


def _make(parameters: WatershedParameters, outputs: Outputs, keep_to_cpu: str) -> Decoder:
    return ForegroundDecoder("foreground_watershed", parameters, decode_watershed, 64, 128)


def main() -> None:
    options = _arguments()
    register_family(
        Family(
            "foreground_watershed",
            ", ".join(FLOW_OUTPUTS),
            FLOW_OUTPUTS.__eq__,
            WatershedParameters,
            _make,
        )
    )
    models = {name: name for name in (*bundled_models(), VIEWS_2D)} | dict(options.model)
    rows: dict[tuple[str, str], Row] = {}
    for setting, stack in chosen_stacks(options.only, options.stacks):
        image, truth = stack.load()
        for method, status, labels in results(stack, image, truth, METHODS[stack.model], models):
            row = rows.setdefault(
                (setting, method.name), Row(setting, method.name, method.model, status)
            )
            row.stacks.append(judge(labels[stack.scored], truth[stack.scored], stack.sparse))
            last = row.stacks[-1]
            print(
                f"{stack.name:32} {method.name:24} Dice {last.dice.mean():.3f} missed "
                f"{last.missed} split {last.split} merged {last.merged} found {last.found}",
                flush=True,
            )
    if options.only:
        return
    ways = filled()
    figures = [row.figures() for row in rows.values()]
    dice: dict[str, dict[str, list[NDArray[np.float64]]]] = defaultdict(dict)
    for row in rows.values():
        dice[row.setting][row.method] = [stack.dice for stack in row.stacks]
    draw(dice, DOCS / "boxplots.png")
    absent = sorted({m.model for each in METHODS.values() for m in each} - set(models))
    text = document(figures, ways, absent)
    write("boxplots", "Methods side by side", text, {"methods": figures, "filling": ways})


def chosen_stacks(words: Sequence[str] | None, most: int) -> Iterator[tuple[str, LabelledStack]]:
    """Stacks that no model here was trained on, each with its setting."""
    here = stacks()
    for setting, group in SETTINGS.items():
        found = [stack for stack in here if stack.group == group]
        if setting == PAPER:
            found = [paper_stack(number) for number in range(most)]
        if not words or any(word in setting for word in words):
            yield from ((setting, stack) for stack in found[:most])


def paper_stack(number: int) -> LabelledStack:
    """One of the paper's test set: what no training saw is the second point-spread function."""

    def load() -> tuple[NDArray[Any], NDArray[Any]]:
        from cellrt.simulation import simulate_paper_nuclei

        stack = simulate_paper_nuclei("psf2", seed=SIMULATION_SEED + number)
        return stack.image, stack.labels

    return LabelledStack(f"paper nuclei {number}", PAPER, "nuclei", load)


def results(
    stack: LabelledStack,
    image: NDArray[Any],
    truth: NDArray[Any],
    chosen: Sequence[Method],
    models: Mapping[str, str],
) -> Iterator[tuple[Method, str, NDArray[np.int32]]]:
    """Labels of some methods; each network runs once for each of its decoders."""
    told, _ = model_options(stack, median_diameter(truth[stack.scored], stack.anisotropy))
    ways: dict[tuple[str, str | None], list[Method]] = defaultdict(list)
    for method in chosen:
        if method.model in models:
            ways[method.model, method.decoder].append(method)
    for (name, decoder), methods in ways.items():
        model = cellrt.load_model(models[name])
        status = TrainingRecord(model.card).status(stack)
        parameters: dict[str, Any] = {}
        if decoder:
            baseline = NUCLEI if stack.model == "nuclei" else MEMBRANES
            parameters = watershed_parameters(baseline, model.card.diameter_voxels)
        cells = cellrt.Segmenter(model, decoder=decoder, decoder_parameters=parameters)
        fields = cells.predict(image, **told)
        for method in methods:
            yield method, status, cells.decode(fields, method.changes).labels


def watershed_parameters(settings: WatershedSettings, diameter: float) -> dict[str, Any]:
    """The settings of the baseline without a network, on the model's grid."""
    return {
        "smoothing": settings.distance_smoothing * diameter,
        "seed_distance": round(settings.seed_distance * diameter),
        "min_radius": diameter / 2 * settings.smallest ** (1 / 3),
    }


def judge(labels: NDArray[Any], truth: NDArray[Any], sparse: bool) -> Judged:
    """Compare labels with the truth; `sparse` leaves out cells where the truth has none."""
    overlaps = cell_overlaps(overlap_table(labels, truth))
    cell, other, shared = overlaps.pair_truth, overlaps.pair_prediction, overlaps.intersection
    count = overlaps.truth_ids.size
    holds = 2 * shared > overlaps.truth_voxels[cell]
    piece = pieces_of(overlaps)
    held = np.bincount(other[holds], minlength=overlaps.prediction_ids.size)
    parts = np.bincount(cell[piece], minlength=count)
    there = np.bincount(cell[holds | piece], minlength=count)
    ignored = int(overlaps.mostly_unlabelled.sum()) if sparse else 0
    return Judged(
        best_matches(overlaps).dice,
        missed=int((there == 0).sum()),
        split=int((parts > 1).sum()),
        merged=int(np.count_nonzero(held[other[holds]] > 1)),
        found=overlaps.prediction_ids.size - ignored,
    )


def pieces_of(overlaps: CellOverlaps) -> NDArray[np.bool_]:
    """Pairs whose found cell lies mostly in the true one and is no speck of it."""
    piece = 2 * overlaps.intersection > overlaps.prediction_voxels[overlaps.pair_prediction]
    piece &= overlaps.intersection >= PIECE * overlaps.truth_voxels[overlaps.pair_truth]
    found: NDArray[np.bool_] = piece
    return found


def document(
    figures: Sequence[Mapping[str, Any]], ways: Sequence[Mapping[str, Any]], absent: Sequence[str]
) -> str:
    """Return docs/boxplots.md."""
    header = (
        "setting", "method", "trained on it", "stacks", "median of the stacks' mean Dice",
        "lower quartile", "median cell", "upper quartile", "cells true", "found", "missed", "split",
        "merged",
    )  # fmt: skip
    cells = [
        [
            row["setting"],
            row["method"],
            STATUS[row["status"]],
            len(row["stack_means"]),
            f"{statistics.median(row['stack_means']):.3f}",
            *(f"{value:.3f}" for value in row["quartiles"]),
            row["cells"],
            *(row[name] for name in ("found", "missed", "split", "merged")),
        ]
        for row in figures
    ]
    filling = table(
        ("shapes", "cells", "Dice by radius", "Dice by Delaunay", "CPU ms per cell by radius",
         "by Delaunay", "by Delaunay over the volume"),
        [
            [
                row["shapes"],
                row["cells"],
                f"{row['dice']:.3f}",
                f"{row['delaunay_dice']:.3f}",
                *(
                    f"{1000 * row[name]:.3g}"
                    for name in ("seconds", "delaunay_seconds", "published_seconds")
                ),
            ]
            for row in ways
        ],
    )  # fmt: skip
    left_out = f"Not here: {', '.join(absent)}.\n\n" if absent else ""
    return f"""\
After Figure 4 of the HarmonicNet paper: the Dice of every true cell with its best match, one box
for each method. The paper's median of the stacks' averages is 0.83 for HarmonicNet and 0.84 to 0.86
for the others on simulated nuclei; on meristem 0.95 for Cellpose, 0.87 for StarDist and HarmonicNet
and 0.85 for U-Net + watershed. **Its networks were trained on simulated nuclei like those of the
test, and on meristem; the models here are the general ones that are bundled.**

![Dice of the cells by method](boxplots.png)

{left_out}{table(header, cells)}
Missed: no predicted cell holds most of it, or is a piece of it. Split: it has several pieces, cells
that lie mostly in it and are at least {PIECE:.0%} of it. Merged: a predicted cell holds most of it
and of another one.

- Simulated nuclei: stacks of 140 x 140 x 1000 voxels with the second point-spread
  function and noise, which no model was trained on. Their nuclei are made of harmonics of up to
  order 5, in favour of HarmonicNet.
- Embryos: nuclei of mice that no model was trained on, stacks that accuracy has, too. Cellpose2D is
  `nuclei-cellpose2d`, one network for the planes along all three axes, which the Cellpose3D paper
  compares with in its Figure 3.
- Simulated tissue: `cellrt simulate membranes`, typical and random styles, stacks
  that [accuracy](accuracy.md) has too. Training saw others of random styles.
- Plant tissue: the part of plant_patch that was held back, on the {_plant_cells(figures)} cells
  that lie mostly in it.

Models are told the cells' diameter where stacks are simulated. *Fit* is `--fit`, the default,
others are drawn with `--no-fit`, *Delaunay* with `--param fill=delaunay` as well. *U-Net +
watershed* floods the distance transform of the foreground map of `nuclei` instead of following its
flows; where walls divide cells, the same is done with the classes of 3DCellSeg's network (no U-Net
of these is bundled). Both have the seeds of the watershed in [accuracy](accuracy.md). There is no
3DCellSeg of nuclei and no StarDist of membranes.

## Filled up to the radius, or by Delaunay

Cells encoded at order 5 and drawn again: voxels that are nearer to the centre than the radius in
their direction, as `cellrt` draws shapes, against the Delaunay simplices of {FEWER} points of
the surface (`--param fill=delaunay`), as in the paper. Simplices fill the convex hull, with all
dents. The last column asks every voxel of the image which simplex it is in, for one cell, as the
published code does for each.

{filling}"""


def _plant_cells(figures: Sequence[Mapping[str, Any]]) -> str:
    return next((str(row["cells"]) for row in figures if "plant" in row["setting"]), "few")


def _model(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    known = {method.model for methods in METHODS.values() for method in methods}
    if not equals or name not in known:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no NAME=FILE with one of {', '.join(sorted(known))} as the name"
        )
    return name, file


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--model", action="append", default=[], type=_model, metavar="NAME=FILE",
        help="where a model is that is not bundled, or another one in its place",
    )  # fmt: skip
    arguments.add_argument("--stacks", type=int, default=STACKS, help="at most, of each setting")
    arguments.add_argument("--only", nargs="+", metavar="WORD", help="print these settings only")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
