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
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, __file__]
        done = subprocess.run([*command, "--inside"], capture_output=True, text=True)
        lines = (done.stdout + done.stderr).splitlines()
        shown = [line for line in lines if line.startswith("=========")][-12:]
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
