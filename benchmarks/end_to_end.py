"""File to labels: cellrt against PyTorch + MONAI's sliding window + what makes cells in Python.

    pip install -e '.[train,dev]' 'cellpose==3.1.1'
    python benchmarks/end_to_end.py
    pip install -e '.[train,dev,dbscan]'
    python benchmarks/end_to_end.py membranes-3dcellseg --coarser 1.2 1.5

All pipelines (``pipelines.py``, ``class_map_python.py``) read the same TIFF, run the same weights
on it and write a label TIFF, on the same CPU in the same run. cellrt runs three times: on the
image's own grid, so that both compute the same voxels, as a user gets it, on the model's grid, and
there in int8, with the file that ``cellrt export --precision int8`` makes; and on request on
coarser grids, which tells what speed costs in cells. Writes
docs/end_to_end.md or docs/end_to_end_3dcellseg.md. ``gpu.py`` does the same on a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile
import torch
from pipelines import (
    Cells,
    cellpose_cells,
    medians,
    network_of,
    precision_words,
    run_cellrt,
    run_pytorch,
)
from report import machine, table, write
from stacks import MEMBRANE_DIAMETER, membranes, paper_membranes

import cellrt
from cellrt.export.precision_variant import write_variant
from cellrt.runtime.model.file import open_model
from cellrt.simulation import SimulatedStack

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="membranes")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--coarser", type=float, nargs="*", default=[], metavar="FACTOR")
    arguments = parser.parse_args()
    model = open_model(arguments.model)
    baselines, page, stack, diameter = _task(model.card.method)
    device = torch.device("cpu")
    network = network_of(model, device)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "stack.tif", Path(folder) / "labels.tif"
        int8 = Path(folder) / f"{model.card.name}-int8.onnx"
        write_variant(arguments.model, int8, "int8")
        tifffile.imwrite(path, stack.image, imagej=True, metadata={"axes": "ZYX"})
        pipelines: dict[str, Any] = {
            f"PyTorch + MONAI + {name}": lambda cells=cells: run_pytorch(
                path, out, network, device, cells
            )
            for name, cells in baselines.items()
        }
        pipelines["cellrt, same grid"] = lambda: run_cellrt(
            path, out, model=arguments.model, diameter=model.card.diameter_voxels
        )
        pipelines["cellrt, as a user runs it"] = lambda: run_cellrt(
            path, out, model=arguments.model, diameter=diameter
        )
        pipelines["cellrt, as a user runs it, int8"] = lambda: run_cellrt(
            path, out, model=int8, diameter=diameter
        )
        for factor in arguments.coarser:
            pipelines[f"cellrt, cells of {model.card.diameter_voxels / factor:.0f} voxels"] = (
                lambda factor=factor: run_cellrt(
                    path, out, model=arguments.model, diameter=factor * diameter
                )
            )
        rows, figures = [], {}
        for name, pipeline in pipelines.items():
            runs = [pipeline() for _ in range(arguments.repeats)]
            seconds = medians(runs)
            scores = cellrt.evaluate(tifffile.imread(out), stack.labels)
            figures[name] = seconds["total"]
            rows.append(
                [
                    name,
                    *(f"{seconds[stage]:.1f}" for stage in ("network", "cells", "total")),
                    f"{scores.mean_dice:.3f}",
                ]
            )
            print(rows[-1], flush=True)
    for row, seconds in zip(rows, figures.values(), strict=True):
        row[4:4] = [
            f"{figures[baseline] / seconds:.1f}" for baseline in list(figures)[: len(baselines)]
        ]
    header = [
        "pipeline",
        "network, s",
        "cells, s",
        "file to labels, s",
        *(f"times faster than {name}" for name in baselines),
        "mean Dice",
    ]
    cells = f"{stack.labels.max()} cells of {diameter:.0f} voxels"
    text = f"""# End to end: {model.card.name}

`{" ".join(["python benchmarks/end_to_end.py", *sys.argv[1:]])}` on {machine()}.

{stack.labels.shape} simulated membranes with {cells}, the same weights
everywhere, {precision_words(device)} unless said otherwise, {_repeats_words(arguments.repeats)}
in one process.

{table(header, rows)}
"Same grid": both compute every voxel of the image. As a user runs it, cellrt first brings cells to
the size that the network was trained for: fewer voxels, and somewhat coarser cells. int8: the file
of `cellrt export {model.card.name} --precision int8`, which must pass that command's gate; it is
an option, not what `cellrt segment` takes by itself.
{_coarser_words(arguments.coarser)}
Target: at least 15 times faster.
"""
    write(page, text, figures)


def _repeats_words(repeats: int) -> str:
    return "one run each" if repeats == 1 else f"medians of {repeats} runs"


def _coarser_words(factors: Sequence[float]) -> str:
    if not factors:
        return ""
    return (
        "Rows that name the size of cells on the grid were told a larger `--diameter` than the\n"
        "cells have: fewer voxels, worse cells."
    )


def _task(method: str) -> tuple[dict[str, Cells], str, SimulatedStack, float]:
    """What a method's network is followed by in Python, the page, the stack and its cells' size."""
    if method == "cellpose3d":
        return {"Cellpose": cellpose_cells}, "end_to_end", membranes(), MEMBRANE_DIAMETER
    from class_map_python import dbscan_cells, tascan_cells

    stack = paper_membranes()
    baselines = {"TASCAN in Python": tascan_cells, "DBSCAN": dbscan_cells}
    return baselines, "end_to_end_3dcellseg", stack, float(stack.parameters["diameter_voxels"])


if __name__ == "__main__":
    main()
