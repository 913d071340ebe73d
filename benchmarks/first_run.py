"""The first ``cellrt segment`` on a machine and the next one, with each bundled model.

    python benchmarks/first_run.py
    python benchmarks/first_run.py --repeats 1 --json    # print the figures, write nothing

Writes docs/first_run.md. Every run is a process of its own, as a user starts it; before the first
one the folder of compiled kernels is empty. Besides the seconds on the clock there are those of the
processor, which say more where other programs run.
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
from typing import Any

from bundled import models_of_stacks
from report import parser, table, write

SHAPE = ("64", "64", "64")
FIRST, LATER = 10.0, 3.0  # seconds that are aimed at
# Compile times by kernel: what `cellrt segment` does, with numba's own events.
TRACED = """
import json, sys, threading, time
from numba.core import event

class Listener(event.Listener):
    found, open = [], threading.local()

    def on_start(self, event):
        self.open.list = getattr(self.open, "list", [])
        self.open.list.append([time.thread_time(), 0.0])

    def on_end(self, event):
        begin, inside = self.open.list.pop()
        took = time.thread_time() - begin
        if self.open.list:
            self.open.list[-1][1] += took
        function = event.data["dispatcher"].py_func
        name = function.__module__ + "." + function.__qualname__.replace(".<locals>", "")
        self.found.append((name, took - inside))

event.register("numba:compile", Listener())
from cellrt.cli.main import main
sys.argv = ["cellrt", *sys.argv[1:]]
try:
    main()
except SystemExit as error:
    assert not error.code
print(json.dumps(Listener.found))
"""


def run(
    words: list[str], cache: Path, *start: str, cores: str = ""
) -> tuple[float, float, float, str]:
    """Seconds on the clock and of the processors, peak MB, and standard output of a process."""
    # An installed package has its bytecode with it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *(start or ("-m", "cellrt")), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment, "NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": cores},
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"cellrt {' '.join(words)} ended with {status}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, out


def measure(stack: Path, model: str, folder: Path, repeats: int) -> dict[str, Any]:
    """All figures of one model."""
    output = str(folder / "cells.labels.tif")
    words = ["segment", str(stack), "-m", model, "-o", output, "--overwrite", "--quiet"]
    runs: dict[str, list[tuple[float, float, float, str]]] = {"first": [], "later": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            for turn in ("first", "later"):
                runs[turn].append(run(words, Path(cache)))
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        # On one core no other process helps, and all that is compiled is seen.
        traced = run(words, Path(cache), "-c", TRACED, cores="1")[3]
        compiled = json.loads(traced.splitlines()[-1])
    by_name: dict[str, float] = {}
    for name, seconds in compiled:
        by_name[name] = by_name.get(name, 0.0) + seconds
    slowest = sorted(by_name.items(), key=lambda item: -item[1])[:10]
    return {
        "model": model,
        "compiled": len(compiled),
        "compile_seconds": sum(by_name.values()),
        "slowest": slowest,
    } | {
        f"{turn}_{name}": statistics.median(one[index] for one in found)
        for turn, found in runs.items()
        for index, name in enumerate(("wall", "cpu", "peak_mb"))
    }


def main() -> None:
    """Measure, and print or write the page."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--json", action="store_true", help="print figures, write no page")
    arguments = options.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("nuclei", "membranes"):
            run(["simulate", kind, "--shape", *SHAPE, "-o", str(folder / kind)], folder / "made")
        for model in models_of_stacks():
            kind = "nuclei" if model == "nuclei" else "membranes"
            stack = folder / kind / f"{kind}_000.tif"
            results.append(measure(stack, model, folder, arguments.repeats))
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    columns = ("first_wall", "first_cpu", "later_wall", "later_cpu", "first_peak_mb", "compiled")
    rows = [
        [r["model"], *(r[c] if c == "compiled" else f"{r[c]:.1f}" for c in columns)]
        for r in results
    ]
    header = ["model", "first, s", "CPU s", "later, s", "CPU s", "peak MB", "functions compiled"]
    slowest = "\n".join(
        f"{r['model']}, {r['compile_seconds']:.1f} s of the processor in all:\n\n"
        + table(["kernel", "s"], [[n.removeprefix("cellrt."), f"{s:.2f}"] for n, s in r["slowest"]])
        for r in results
    )
    text = f"""A stack of 64 x 64 x 64 voxels, medians of {arguments.repeats}. The first run
compiles the kernels and keeps them; the aims are {FIRST:.0f} s for it and {LATER:.0f} s for the
next.

{table(header, rows)}
## What takes long to compile

{slowest}"""
    write("first_run", "The first run", text, results)


if __name__ == "__main__":
    main()
