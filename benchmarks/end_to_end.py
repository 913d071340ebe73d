"""File to labels: cellrt against PyTorch + MONAI's sliding window + what makes cells in Python.

    python benchmarks/end_to_end.py
    python benchmarks/end_to_end.py membranes-3dcellseg --coarser 1.2 --repeats 1
    python benchmarks/end_to_end.py nuclei-harmonicnet --repeats 1
    python benchmarks/end_to_end.py nuclei-stardist

All pipelines (``pipelines.py``, ``class_map_python.py``, ``shapes_python.py``) read the same TIFF,
run the same weights over it on the same grid and write a label TIFF, on the same CPU, in turns.
Grids: the image's own; the model's, as cellrt takes it by itself; and coarser ones on request,
which tells what speed costs in cells. Writes docs/end_to_end.md, or docs/end_to_end_3dcellseg.md,
_harmonicnet.md and _stardist.md. ``gpu.py`` does the same on a GPU. For shapes 2 minutes each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from cellpose_dynamics import ITERATIONS, cellpose_version, require_cellpose
from pipelines import (
    Cells,
    cellpose_cells,
    medians,
    network_of,
    planned_grid,
    precisions,
    run_cellrt,
    run_pytorch,
    walls_filled,
)
from report import parser, table, write
from stacks import (
    MEMBRANE_DIAMETER,
    MEMBRANES,
    NUCLEI,
    PAPER_SHAPE,
    membranes,
    nuclei,
    paper_membranes,
)

import cellrt
from cellrt.export.precision_variant import write_variant
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.simulation import SimulatedStack

REPEATS = 3
CPU = torch.device("cpu")


class Task(NamedTuple):
    """What a method's network is followed by in Python, the page, the stack, and the target."""

    baselines: dict[str, Cells]
    page: str
    title: str
    words: str
    stack: SimulatedStack
    diameter: float
    target: int = 15


class Way(NamedTuple):
    """One way from the file to labels."""

    grid: str
    pipeline: str
    precision: str
    run: Callable[[], dict[str, float]]
    finish: Callable[[np.ndarray], np.ndarray]


def main() -> None:
    arguments = _arguments()
    model = open_model(arguments.model)
    task = _task(model.card, arguments.shape)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = folder / "stack.tif"
        tifffile.imwrite(stack, task.stack.image, imagej=True, metadata={"axes": "ZYX"})
        cellrt.segment(task.stack.image[:32, :64, :64], model=model, diameter=task.diameter)
        ways = _ways(model, task, arguments.coarser, folder)
        rows = _measured(ways, task, folder, arguments.repeats)
    write(task.page, task.title, _page(model, task, rows, arguments), rows)


def _ways(model: ModelFile, task: Task, coarser: list[float], folder: Path) -> list[Way]:
    """Every pipeline in every precision on every grid."""
    card, stack, out = model.card, folder / "stack.tif", folder / "labels.tif"
    int8 = folder / f"{card.name}-int8.onnx"
    write_variant(model.path, int8, "int8")
    network = network_of(model, CPU)
    told = {
        f"the image's: cells of {task.diameter:.0f} voxels": card.diameter_voxels,
        **(
            {f"the model's: cells of {card.diameter_voxels:g}": task.diameter}
            if task.diameter != card.diameter_voxels
            else {}
        ),
        **{
            f"coarser: cells of {card.diameter_voxels / factor:.0f}": factor * task.diameter
            for factor in coarser
        },
    }
    ways = []
    for words, diameter in told.items():
        grid = planned_grid(stack, model.path, diameter)
        for name, cells in task.baselines.items():
            ways += [
                Way(
                    words,
                    name,
                    precision,
                    lambda g=grid, p=precision, c=cells: run_pytorch(
                        stack, out, network, card, g, CPU, precision=p, cells=c
                    ),
                    lambda labels, g=grid: walls_filled(labels, card, g),
                )
                for precision in precisions(CPU)
            ]
        for precision in (*precisions(CPU), "int8"):
            file = int8 if precision == "int8" else model.path
            asked = "auto" if precision == "int8" else precision
            ways.append(
                Way(
                    words,
                    "cellrt",
                    precision,
                    lambda f=file, d=diameter, p=asked: run_cellrt(
                        stack, out, model=f, diameter=d, precision=p
                    ),
                    lambda labels: labels,
                )
            )
    return ways


def _measured(ways: list[Way], task: Task, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Run all of them in turns, as often as asked, and score what the last turn left."""
    runs: list[list[dict[str, float]]] = [[] for _ in ways]
    dice = [0.0] * len(ways)
    for turn in range(repeats):
        for number, way in enumerate(ways):
            runs[number].append(way.run())
            print(way.grid, way.pipeline, way.precision, runs[number][-1], flush=True)
            if turn == 0:
                labels = way.finish(tifffile.imread(folder / "labels.tif"))
                dice[number] = cellrt.evaluate(labels, task.stack.labels).mean_dice
    return [
        {
            "grid": way.grid,
            "pipeline": way.pipeline,
            "precision": way.precision,
            "seconds": medians(found),
            "mean_dice": score,
        }
        for way, found, score in zip(ways, runs, dice, strict=True)
    ]


def _fastest(rows: list[dict[str, Any]], grid: str, pipeline: str) -> float:
    """Seconds of a pipeline in the precision that is fastest on a grid; int8 is asked for."""
    return min(
        row["seconds"]["total"]
        for row in rows
        if (row["grid"], row["pipeline"]) == (grid, pipeline) and row["precision"] != "int8"
    )


def _page(
    model: ModelFile, task: Task, rows: list[dict[str, Any]], arguments: argparse.Namespace
) -> str:
    """docs/end_to_end.md and its like."""
    own = rows[0]["grid"]
    headline = "\n".join(
        f"- {_fastest(rows, own, name) / _fastest(rows, own, 'cellrt'):.1f} times as fast as {name}"
        f" ({_fastest(rows, own, 'cellrt'):.1f} s to {_fastest(rows, own, name):.1f} s)"
        for name in task.baselines
    )
    header = [
        *("grid", "pipeline", "precision", "network, s", "cells, s", "file to labels, s"),
        *(f"times as fast as {name}" for name in task.baselines),
        "mean Dice",
    ]
    cells = [
        [
            *(row[key] for key in ("grid", "pipeline", "precision")),
            *(f"{row['seconds'][stage]:.1f}" for stage in ("network", "cells", "total")),
            *(
                f"{_fastest(rows, row['grid'], name) / row['seconds']['total']:.1f}"
                for name in task.baselines
            ),
            f"{row['mean_dice']:.3f}",
        ]
        for row in rows
    ]
    shape, card = task.stack.labels.shape, model.card
    repeats = arguments.repeats
    turns = "one run each" if repeats == 1 else f"medians of {repeats} runs, in turns"
    return f"""{shape} simulated {task.stack.kind} with {task.stack.labels.max()} cells of \
{task.diameter:.0f} voxels, the weights of `{card.name}` everywhere,
{turns} in one process. On the image's own grid, each in its fastest precision, cellrt is

{headline}

Target: at least {task.target} times.

{table(header, cells)}
*Times as fast as* compares with the same grid: with what is fastest there, of fp32 and the 16 bits
that the CPU has instructions for. The image's grid: the network computes every voxel. The model's:
cells are first brought to the size that it was trained for, as cellrt does by itself; PyTorch is
given the same, which people rarely do. Coarser: both are told that cells are larger than they are.

The baseline is not made slow. It gets the image normalised and resampled by cellrt, windows of
cellrt's tiles with a quarter of overlap, channels-last and, for bf16, autocast; its network is
loaded before the clock starts, cellrt's after. {task.words}
{_int8(card.name)}"""


def _int8(name: str) -> str:
    return f"""
int8 is the file of `cellrt export {name} --precision int8`, which must pass that command's
gate; it is not what `cellrt segment` takes by itself.
"""


def _task(card: ModelCard, shape: tuple[int, int, int] | None) -> Task:
    tasks = {
        "cellpose3d": _cellpose3d,
        "cellseg3d": _cellseg3d,
        "harmonicnet": _harmonicnet,
        "stardist3d": _stardist,
    }
    return tasks[card.method](card, shape)


def _cellpose3d(card: ModelCard, shape: tuple[int, int, int] | None) -> Task:
    require_cellpose()
    words = (
        f"Cellpose {cellpose_version()}\nfollows its flows for {ITERATIONS} steps instead of 200, "
        "at the threshold of the model's card; the\nwalls that it leaves out are filled by "
        "cellrt's rule before its Dice is taken, off the clock."
    )
    return Task(
        {"PyTorch + MONAI + Cellpose": cellpose_cells},
        "end_to_end",
        "End to end",
        words,
        membranes(shape or MEMBRANES),
        MEMBRANE_DIAMETER,
    )


def _cellseg3d(card: ModelCard, shape: tuple[int, int, int] | None) -> Task:
    from class_map_python import dbscan_cells, tascan_cells

    stack = paper_membranes(shape or PAPER_SHAPE)
    return Task(
        {
            "PyTorch + MONAI + TASCAN in Python": tascan_cells,
            "PyTorch + MONAI + DBSCAN": dbscan_cells,
        },
        "end_to_end_3dcellseg",
        "End to end: 3DCellSeg",
        "The steps in Python are\narray operations of NumPy, SciPy, scikit-image and scikit-learn.",
        stack,
        float(stack.parameters["diameter_voxels"]),
    )


def _harmonicnet(card: ModelCard, shape: tuple[int, int, int] | None) -> Task:
    from shapes_python import harmonic_cells, harmonic_cells_over_the_volume

    words = (
        "Its cells are the Delaunay\nsimplices of 500 points on the surface; every voxel of the "
        "volume is asked which of them it is in, as in the\npublished code, or, in its favour, "
        "only those of the shape's box."
    )
    return Task(
        {
            "PyTorch + MONAI + Delaunay over the volume": harmonic_cells_over_the_volume,
            "PyTorch + MONAI + Delaunay in boxes": harmonic_cells,
        },
        "end_to_end_harmonicnet",
        "End to end: HarmonicNet",
        words,
        nuclei(card.diameter_voxels, shape or NUCLEI),
        card.diameter_voxels,
        target=10,
    )


def _stardist(card: ModelCard, shape: tuple[int, int, int] | None) -> Task:
    from shapes_python import require_stardist, stardist_cells

    words = (
        f"Its cells come\nfrom the package stardist {require_stardist()}, compiled C++ with "
        "threads, at the card's thresholds; it does not lengthen rays\nto the volume of a ball, "
        "so that its cells are smaller."
    )
    return Task(
        {"PyTorch + MONAI + stardist": stardist_cells},
        "end_to_end_stardist",
        "End to end: StarDist",
        words,
        nuclei(card.diameter_voxels, shape or NUCLEI),
        card.diameter_voxels,
        target=10,
    )


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("model", nargs="?", default="membranes")
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    arguments.add_argument("--coarser", type=float, nargs="*", default=[], metavar="FACTOR")
    arguments.add_argument("--shape", type=int, nargs=3, help="of a smaller stack, to try it")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
