"""Prove the GPU code on a machine with an NVIDIA card, in phases that each leave their figures.

On the machine with the card, in the root of this tree, with what `prepare.py` packed unpacked into
a folder that Python finds::

    python benchmarks/device_check/run.py OUT [--only tests,races,...]

Phases, in this order:

tests       what tests/ has for devices, on the real one instead of numba's simulator
races       ten fields decoded, merged, and shapes drawn, twice each, against the CPU, bit for bit
sanitize    a small field under compute-sanitizer: memcheck, initcheck, racecheck
engines     `cellrt doctor`; a stack in every engine that loads, its cells against the CPU's
gpu         ``benchmarks/gpu.py``, phase by phase

Each phase is a process of its own with a limit of time, so that one that crashes or hangs takes no
other with it; what it printed lies in ``OUT/PHASE.txt``, and how all ended in ``OUT/phases.json``.
``--rehearse`` runs races and engines on a CPU, in numba's simulator, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
TESTS = (
    "tests/device",
    "tests/runtime/decoding/flows/test_cuda.py",
    "tests/runtime/decoding/star/test_rasterise_cuda.py",
)
# Arguments of Python, and seconds that each may take.
PHASES: dict[str, tuple[list[list[str]], float]] = {
    "tests": (
        [["-m", "pytest", "-q", "-k", "device", "-p", "no:cacheprovider", *TESTS]],
        200,
    ),
    "races": ([[str(FOLDER / "races.py")]], 90),
    "sanitize": ([[str(FOLDER / "sanitize.py")]], 120),
    "engines": ([["-m", "cellrt", "doctor"], [str(FOLDER / "engines.py")]], 120),
    "gpu": ([[str(ROOT / "benchmarks" / "gpu.py"), "--repeats", "2"]], 400),
}
REHEARSED = ("races", "engines")


def run(phase: str, out: Path, rehearse: bool) -> dict[str, object]:
    """Run a phase; returns how it ended."""
    commands, limit = PHASES[phase]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path[1:]))}
    if rehearse:
        environment["NUMBA_ENABLE_CUDASIM"] = "1"
    begin, codes = time.monotonic(), []
    with (out / f"{phase}.txt").open("w", encoding="utf-8") as printed:
        for command in commands:
            more = ["--keep", str(out)] if phase == "gpu" else []
            left = limit - (time.monotonic() - begin)
            try:
                done = subprocess.run(
                    [sys.executable, *command, *more],
                    cwd=ROOT,
                    env=environment,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    timeout=max(1.0, left),
                )
                codes.append(done.returncode)
            except subprocess.TimeoutExpired:
                codes.append(-1)
    return {"codes": codes, "seconds": round(time.monotonic() - begin, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for what the phases print and measure")
    parser.add_argument("--only", default=",".join(PHASES), help="phases, with commas [all]")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, in the simulator")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = options.only.split(",") if not options.rehearse else list(REHEARSED)
    if unknown := set(wanted) - set(PHASES):
        parser.error(f"no phase {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    ended = {}
    for phase in (name for name in PHASES if name in wanted):
        ended[phase] = run(phase, options.out, options.rehearse)
        text = (options.out / f"{phase}.txt").read_text(encoding="utf-8", errors="replace")
        print(f"== {phase}: {ended[phase]}", *text.splitlines()[-25:], sep="\n", flush=True)
        (options.out / "phases.json").write_text(json.dumps(ended, indent=1), encoding="utf-8")
    sys.exit(any(any(codes) for codes in (e["codes"] for e in ended.values())))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
