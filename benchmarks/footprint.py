"""Memory per voxel of ``segment``, and how fast the command starts.

    python benchmarks/footprint.py

Writes docs/footprint.md. Every figure comes from a fresh process, as a user starts it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tifffile
from report import machine, table, write
from stacks import mirrored

from cellrt.runtime.decoding.flows.decoder import FlowDecoder
from cellrt.runtime.plan import PROMISED_BYTES
from cellrt.simulation import simulate_nuclei

SHAPES = ((64, 64, 64), (64, 256, 256), (128, 256, 256), (96, 512, 512), (192, 512, 512))


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


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stack = Path(folder) / "stack.tif"
        voxel = ["--voxel-size", "0.6", "0.6", "0.6"]
        base = simulate_nuclei((64, 256, 256), seed=5)
        for shape in SHAPES:
            image = mirrored(base.image, shape)
            tifffile.imwrite(stack, image, imagej=False)
            seconds, peak, out = run(["segment", str(stack), "--json", "--overwrite", *voxel])
            result = json.loads(out.splitlines()[-1])
            limit = FlowDecoder.promised_bytes * image.size + PROMISED_BYTES
            rows.append(
                [
                    f"{shape}",
                    f"{image.size / 1e6:.1f}",
                    result["cells"],
                    f"{seconds:.1f}",
                    f"{peak / 1e6:.0f}",
                    f"{limit / 1e6:.0f}",
                    "yes" if peak <= limit else "no",
                ]
            )
        small = mirrored(base.image, (64, 64, 64))
        tifffile.imwrite(stack, small, imagej=False)
        cache = str(Path(folder) / "numba")
        first = run(["segment", str(stack), "--overwrite", *voxel], NUMBA_CACHE_DIR=cache)[0]
        later = statistics.median(
            run(["segment", str(stack), "--overwrite", *voxel], NUMBA_CACHE_DIR=cache)[0]
            for _ in range(3)
        )
        helps = statistics.median(run(["--help"])[0] for _ in range(5))
    text = f"""# Memory and start

`python benchmarks/footprint.py` on {machine()}.

{table(["stack", "Mvoxels", "cells", "seconds", "peak MB", "16 B/voxel + 1 GB", "within"], rows)}
| start | seconds | target |
|---|---|---|
| `cellrt --help` (median of 5) | {helps:.2f} | 0.4 |
| first `segment` of a 64³ stack, kernels not compiled yet | {first:.1f} | |
| later `segment` of a 64³ stack (median of 3) | {later:.1f} | 3 |
"""
    write("footprint", text, {"rows": rows, "help": helps, "first": first, "later": later})


if __name__ == "__main__":
    main()
