"""Memory of whole runs of ``segment`` with each model, and how fast the command starts.

    python benchmarks/footprint.py

Writes docs/footprint.md and .json. Every figure comes from a fresh process, as a user starts it.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tifffile
from bundled import models_of_stacks
from report import parser, table, write
from stacks import mirrored

from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.model.file import open_model
from cellrt.runtime.plan import PROMISED_BYTES
from cellrt.simulation.styles import simulate_style

SHAPES = ((64, 64, 64), (64, 256, 256), (128, 256, 256), (96, 512, 512), (192, 512, 512))
# Other engines and precisions, which take more per voxel of a tile and have smaller ones.
OTHERS = (("openvino", "fp32"), ("onnxruntime", "fp32"))
SHAPE_OF_OTHERS = (64, 256, 256)


def run(arguments: list[str], **environment: str) -> tuple[float, int, str]:
    """Run the command line; return seconds, peak resident bytes and standard output."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "cellrt", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"cellrt {' '.join(arguments)} ended with {status}")
    return seconds, usage.ru_maxrss * 1024, out


def memory(folder: Path, largest: int) -> list[dict[str, Any]]:
    """Whole runs on stacks whose cells have the size that each model knows."""
    rows = []
    for name in models_of_stacks():
        card = open_model(name).card
        base = simulate_style(card.target, seed=5, diameter_voxels=card.diameter_voxels)
        promised = decoder_for(card).promised_bytes
        runs = [(shape, ()) for shape in SHAPES]
        runs += [(SHAPE_OF_OTHERS, other) for other in OTHERS]
        for shape, other in runs:
            if math.prod(shape) > largest:
                continue
            stack, told = folder / "stack.tif", folder / "stack.run.json"
            tifffile.imwrite(stack, mirrored(base.image, shape), imagej=False)
            words = ["segment", str(stack), "--model", name, "--overwrite"]
            words += ["--diameter", f"{card.diameter_voxels}", "--anisotropy", "1"]
            if other:
                words += ["--engine", other[0], "--precision", other[1]]
            seconds, peak, _ = run(words)
            record = json.loads(told.read_text(encoding="utf-8"))
            row = {"model": name, "shape": shape, "seconds": seconds, "peak_bytes": peak}
            row["engine"] = f"{record['engine']['name']}, {record['engine']['precision']}"
            row["cells"] = record["cells"]
            row["bytes_per_voxel"] = promised
            row["promised_bytes"] = promised * math.prod(shape) + PROMISED_BYTES
            rows.append(row)
            print(row, flush=True)
    return rows


def start(folder: Path) -> dict[str, float]:
    """Seconds of the command itself, and of a small stack before and after kernels are compiled."""
    stack = folder / "stack.tif"
    image = simulate_style("nuclei", seed=5, shape=(64, 64, 64)).image
    tifffile.imwrite(stack, image, imagej=False)
    words = ["segment", str(stack), "--overwrite", "--voxel-size", "0.6", "0.6", "0.6"]
    cache = str(folder / "numba")
    return {
        "first": run(words, NUMBA_CACHE_DIR=cache)[0],
        "later": statistics.median(run(words, NUMBA_CACHE_DIR=cache)[0] for _ in range(3)),
        "help": statistics.median(run(["--help"])[0] for _ in range(5)),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--largest", type=float, default=math.inf, help="voxels of a stack")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = memory(Path(folder), options.largest)
        seconds = start(Path(folder))
    cells = [
        [
            row["model"],
            row["engine"],
            row["shape"],
            f"{math.prod(row['shape']) / 1e6:.1f}",
            row["cells"],
            f"{row['seconds']:.1f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['promised_bytes'] / 1e6:.0f} ({row['bytes_per_voxel']} B/voxel + 1 GB)",
            "yes" if row["peak_bytes"] <= row["promised_bytes"] else "**no**",
        ]
        for row in rows
    ]
    header = ["model", "engine", "stack", "Mvoxels", "cells", "seconds"]
    header += ["peak MB", "promised MB", "within"]
    text = f"""\
Whole runs of `cellrt segment` on 16-bit stacks, each in a process of its own: the peak of its
resident memory. Cells have the size that the model knows, so that every voxel is computed. In fp32,
and with ONNX Runtime, an engine takes more per voxel of a tile, and has smaller ones.

{table(header, cells)}
| start | seconds | target |
|---|---|---|
| `cellrt --help` (median of 5) | {seconds["help"]:.2f} | 0.4 |
| first `segment` of a 64³ stack, kernels not compiled yet | {seconds["first"]:.1f} | |
| later `segment` of a 64³ stack (median of 3) | {seconds["later"]:.1f} | 3 |
"""
    write("footprint", "Memory and start", text, {"rows": rows, **seconds})


if __name__ == "__main__":
    main()
