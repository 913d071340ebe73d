"""What runs on a GPU, run in numba's simulator of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

FOLDER = Path(__file__).parent
LONGEST = FOLDER / "device" / "test_device_fields.py"
# Two of about the same length, beside each other: the simulator takes one core.
PARTS = (
    (LONGEST, *(FOLDER / "runtime/decoding").rglob("test_*cuda.py")),
    (FOLDER / "device", f"--ignore={LONGEST}"),
)


@pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="this is the simulator")
def test_what_runs_on_a_gpu_runs_in_the_simulator(tmp_path):
    running = []
    for number, part in enumerate(PARTS):
        with (tmp_path / f"{number}.txt").open("w") as said:
            # The simulator has to be chosen before numba is imported: processes of their own.
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, part)],
                env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
                cwd=FOLDER.parent,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        running.append((process, Path(said.name)))
    try:
        for process, said in running:
            process.wait(timeout=900)
            text = said.read_text()
            assert process.returncode == 0, text[-5000:]
            assert " passed" in text
    finally:
        for process, _ in running:
            process.kill()
            process.wait()
