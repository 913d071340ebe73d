"""Run the kernels on a small field under compute-sanitizer.

What it finds ends this with exit code 1. ``--inside`` is the process that is watched.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

TOOLS = ("memcheck", "initcheck", "racecheck")


def main() -> None:
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    failed = []
    for tool in TOOLS:
        # What numba asks the driver in vain, on its way to find out what it can do, is no fault.
        quiet = ["--report-api-errors", "no"] if tool == "memcheck" else []
        command = [program, "--tool", tool, *quiet, "--error-exitcode", "9"]
        command += [sys.executable, __file__]
        done = subprocess.run([*command, "--inside"], capture_output=True, text=True)
        lines = (done.stdout + done.stderr).splitlines()
        found = [line for line in lines if line.startswith("=========")]
        shown = found if len(found) < 40 else [*found[:20], "...", *found[-20:]]
        print(f"{tool}: exit code {done.returncode}", *(shown or lines[-12:]), sep="\n", flush=True)
        if done.returncode:
            failed.append(tool)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def inside() -> None:
    """Everything that is launched: all passes of the decoder, another grid, and a merge."""
    import races

    races.SHAPE, races.TILE, races.FIELDS = (16, 32, 32), (16, 16, 16), 1
    races.main()


if __name__ == "__main__":
    inside() if "--inside" in sys.argv else main()
