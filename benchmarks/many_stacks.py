"""Twenty small stacks through one `Segmenter`, through `cellrt.segment`, and by the command line.

python benchmarks/many_stacks.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import tifffile
from report import parser

import cellrt
from cellrt.errors import CellrtWarning
from cellrt.simulation.styles import simulate_style

COUNT = 20


def main() -> None:
    """Time the three and print their ratios."""
    arguments = parser(__doc__)
    arguments.add_argument("--count", type=int, default=COUNT, help="stacks")
    count = arguments.parse_args().count
    warnings.simplefilter("ignore", CellrtWarning)
    with tempfile.TemporaryDirectory() as folder:
        stacks = [_stack(Path(folder) / f"{number}.tif", number) for number in range(count)]
        begin = time.perf_counter()
        cells = cellrt.Segmenter("nuclei")
        for stack in stacks:
            cells(stack).save(overwrite=True, preview=False)
        once = time.perf_counter() - begin
        begin = time.perf_counter()
        for stack in stacks:
            cellrt.segment(stack).save(overwrite=True, preview=False)
        calls = time.perf_counter() - begin
        begin = time.perf_counter()
        for stack in stacks:
            words = ["segment", str(stack), "--overwrite", "--quiet", "--no-preview"]
            subprocess.run([sys.executable, "-m", "cellrt", *words], check=True)
        processes = time.perf_counter() - begin
    print(
        f"{count} stacks: one Segmenter {once:.2f} s, cellrt.segment {calls:.2f} s "
        f"({once / calls:.2f}), command lines {processes:.2f} s ({once / processes:.2f})"
    )


def _stack(path: Path, seed: int) -> Path:
    size = (0.5, 0.5, 0.5)
    stack = simulate_style("nuclei", seed=seed, shape=(32, 64, 64), voxel_size_um=size)
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(path, stack.image, imagej=True, resolution=(2, 2), metadata=metadata)
    return path


if __name__ == "__main__":
    main()
