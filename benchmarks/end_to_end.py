"""File to labels: cellrt against PyTorch + MONAI sliding window + Cellpose 3's ``compute_masks``.

    pip install -e '.[train,dev]' 'cellpose==3.1.1'
    python benchmarks/end_to_end.py

Both pipelines (``pipelines.py``) read the same TIFF, run the same weights on it and write a label
TIFF, on the same CPU in the same run. cellrt runs twice: on the image's own grid, so that both
compute the same voxels, and as a user gets it, on the model's grid. Writes docs/end_to_end.md.
``gpu.py`` does the same on a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import tifffile
import torch
from pipelines import medians, network_of, precision_words, run_cellrt, run_pytorch
from report import machine, table, write
from stacks import MEMBRANE_DIAMETER, MEMBRANES, membranes

import cellrt
from cellrt.runtime.model_file import open_model

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    repeats = parser.parse_args().repeats
    model = open_model("membranes")
    stack = membranes()
    device = torch.device("cpu")
    network = network_of(model.path, device)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "stack.tif", Path(folder) / "labels.tif"
        tifffile.imwrite(path, stack.image, imagej=True, metadata={"axes": "ZYX"})
        pipelines: dict[str, Any] = {
            "PyTorch + MONAI + Cellpose": lambda: run_pytorch(path, out, network, device),
            "cellrt, same grid": lambda: run_cellrt(
                path, out, model="membranes", diameter=model.card.diameter_voxels
            ),
            "cellrt, as a user runs it": lambda: run_cellrt(
                path, out, model="membranes", diameter=MEMBRANE_DIAMETER
            ),
        }
        rows, figures = [], {}
        for name, pipeline in pipelines.items():
            runs = [pipeline() for _ in range(repeats)]
            seconds = medians(runs)
            scores = cellrt.evaluate(tifffile.imread(out), stack.labels)
            figures[name] = seconds["total"]
            rows.append(
                [
                    name,
                    f"{seconds['network']:.1f}",
                    f"{seconds['cells']:.1f}",
                    f"{seconds['total']:.1f}",
                    f"{figures['PyTorch + MONAI + Cellpose'] / seconds['total']:.1f}",
                    f"{scores.mean_dice:.3f}",
                ]
            )
    header = [
        "pipeline",
        "network, s",
        "cells, s",
        "file to labels, s",
        "times faster",
        "mean Dice",
    ]
    cells = f"{int(stack.labels.max())} cells of {MEMBRANE_DIAMETER:.0f} voxels"
    text = f"""# End to end

`python benchmarks/end_to_end.py` on {machine()}.

{MEMBRANES} simulated membranes with {cells}, the same
weights everywhere, {precision_words(device)}, medians of {repeats} run(s) in one process.

{table(header, rows)}
"Same grid": both compute every voxel of the image. As a user runs it, cellrt first brings cells to
the size that the network was trained for: fewer voxels, and somewhat coarser cells.
Target: at least 15 times faster.
"""
    write("end_to_end", text, figures)


if __name__ == "__main__":
    main()
