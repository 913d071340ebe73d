"""File to labels: cellrt against PyTorch + MONAI sliding window + Cellpose 3's ``compute_masks``.

    pip install -e '.[train,dev]' 'cellpose==3.1.1'
    python benchmarks/end_to_end.py

Both pipelines read the same TIFF, run the same weights on it and write a label TIFF, on the same
machine in the same run. The baseline is what people use today: a PyTorch network in channels-last,
in bf16 where the CPU has instructions for it (else fp32), MONAI's sliding window with a quarter of
overlap and Gaussian weights, Cellpose's own dynamics with 100 iterations. cellrt runs twice: on the
image's own grid, so that both compute the same voxels, and as a user gets it, on the model's grid.
Writes docs/end_to_end.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from cellpose.dynamics import compute_masks
from monai.inferers import sliding_window_inference
from report import machine, table, write

import cellrt
from cellrt.models.cellpose3d import Cellpose3D
from cellrt.models.fold import fold_batch_norm
from cellrt.runtime.card import Normalisation
from cellrt.runtime.intensity import estimate_range, normalise
from cellrt.runtime.model_file import open_model
from cellrt.runtime.writing import write_labels
from cellrt.simulation import ImagingParameters, MembraneParameters, simulate_membranes
from cellrt.training.init import read_onnx_weights

SHAPE = (128, 256, 256)
CELLS = 400
REPEATS = 3


def network_of(path: Path) -> torch.nn.Module:
    """The bundled weights in PyTorch, batch norm folded as in the file."""
    network = Cellpose3D().eval()
    weights = read_onnx_weights(path, network)
    folded = fold_batch_norm(network)
    for name, (weight, bias) in weights.items():
        layer = folded.get_submodule(name)
        layer.weight.data, layer.bias.data = weight, bias
    return folded.eval()


def baseline(path: Path, out: Path, network: torch.nn.Module, *, bf16: bool) -> dict[str, float]:
    """PyTorch + MONAI + Cellpose; return seconds per stage."""
    begin = time.perf_counter()
    image = tifffile.imread(path)
    volume = normalise(image, estimate_range(image, Normalisation()))
    batch = torch.from_numpy(volume[None, None])
    start = time.perf_counter()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        fields = sliding_window_inference(
            batch.to(memory_format=torch.channels_last_3d),
            roi_size=(64, 128, 128),
            sw_batch_size=1,
            predictor=network,
            overlap=0.25,
            mode="gaussian",
        )
    fields = fields[0].float().numpy()
    middle = time.perf_counter()
    # Cellpose scales flows by 5 in training and divides by 5 here; its threshold is on logits.
    probability = np.clip(fields[3], 1e-6, 1 - 1e-6)
    masks = compute_masks(
        5 * fields[:3], np.log(probability / (1 - probability)), niter=100, do_3D=True
    )
    masks = np.asarray(masks[0] if isinstance(masks, tuple) else masks)
    end = time.perf_counter()
    tifffile.imwrite(out, masks.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    return {
        "network": middle - start,
        "cells": end - middle,
        "total": time.perf_counter() - begin,
    }


def ours(path: Path, out: Path, diameter: float) -> dict[str, float]:
    """cellrt; return seconds per stage."""
    begin = time.perf_counter()
    result = cellrt.segment(path, model="membranes", diameter=diameter)
    write_labels(out, result.labels, result.volume)
    seconds = result.record["seconds"]
    return {
        "network": seconds["network"],
        "cells": seconds["cells"],
        "total": time.perf_counter() - begin,
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each stage."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    repeats = parser.parse_args().repeats
    model = open_model("membranes")
    diameter = (6 * np.prod(SHAPE) / CELLS / np.pi) ** (1 / 3)
    stack = simulate_membranes(
        SHAPE,
        diameter_voxels=float(diameter),
        membranes=MembraneParameters(),
        imaging=ImagingParameters(),
        seed=42,
    )
    network = network_of(model.path).to(memory_format=torch.channels_last_3d)
    bf16 = torch.backends.cpu.get_cpu_capability().startswith("AMX")
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "stack.tif", Path(folder) / "labels.tif"
        tifffile.imwrite(path, stack.image, imagej=True, metadata={"axes": "ZYX"})
        pipelines: dict[str, Any] = {
            "PyTorch + MONAI + Cellpose": lambda: baseline(path, out, network, bf16=bf16),
            "cellrt, same grid": lambda: ours(path, out, model.card.diameter_voxels),
            "cellrt, as a user runs it": lambda: ours(path, out, float(diameter)),
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
    text = f"""# End to end

`python benchmarks/end_to_end.py` on {machine()}.

{SHAPE} simulated membranes with {int(stack.labels.max())} cells of {diameter:.0f} voxels, the same
weights everywhere, {"bf16" if bf16 else "fp32"}, medians of {repeats} run(s) in one process.

{table(header, rows)}
"Same grid": both compute every voxel of the image. As a user runs it, cellrt first brings cells to
the size that the network was trained for: fewer voxels, and somewhat coarser cells.
Target: at least 15 times faster.
"""
    write("end_to_end", text, figures)


if __name__ == "__main__":
    main()
