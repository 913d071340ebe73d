"""Two checkouts on the same stacks, in turn: time, memory, and whether the results are the same.

git worktree add ../before COMMIT
python benchmarks/two_commits.py ../before . STACK:MODEL [STACK:MODEL ...] --repeats 5
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import parser


def main() -> None:
    """Print medians, their ratio, and whether labels and tables are the same bytes."""
    options = parser(__doc__)
    options.add_argument("before", type=Path)
    options.add_argument("after", type=Path)
    options.add_argument("cases", nargs="+", help="STACK:MODEL")
    options.add_argument("--repeats", type=int, default=5)
    arguments = options.parse_args()
    codes = (arguments.before.resolve(), arguments.after.resolve())
    for case in arguments.cases:
        stack, _, model = case.rpartition(":")
        runs: list[list[tuple[float, float, str]]] = [[], []]
        for code in codes:
            _run(code, stack, model)  # fills caches
        for number in range(arguments.repeats):
            for which in (0, 1) if number % 2 else (1, 0):
                runs[which].append(_run(codes[which], stack, model))
        before, after = (statistics.median(run[0] for run in side) for side in runs)
        memory = [statistics.median(run[1] for run in side) for side in runs]
        same = "same" if len({run[2] for side in runs for run in side}) == 1 else "OTHER"
        print(
            f"{Path(stack).name} {model}: {before:.2f} to {after:.2f} s ({after / before:.3f}), "
            f"{memory[0]:.0f} to {memory[1]:.0f} MB, {same} labels and table",
            flush=True,
        )


def _run(code: Path, stack: str, model: str) -> tuple[float, float, str]:
    """Seconds, peak MB and a hash of the results of one process."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["segment", str(Path(stack).resolve()), "-m", model, "-o", f"{folder}/a.labels.tif"]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "cellrt", *words, "--quiet", "--precision", "fp32"],
            env={**os.environ, "PYTHONPATH": str(code)},
            cwd=folder,  # the folder that this runs in must not decide the code
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            raise SystemExit(f"{code}: {stack} failed")
        results = [Path(folder) / name for name in ("a.labels.tif", "a.cells.csv")]
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in results)).hexdigest()
    return seconds, usage.ru_maxrss / 1e3, digest


if __name__ == "__main__":
    main()
