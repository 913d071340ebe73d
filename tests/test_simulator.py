"""What runs on a GPU, run in numba's simulator of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

FOLDER = Path(__file__).parent


@pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="this is the simulator")
def test_what_runs_on_a_gpu_runs_in_the_simulator():
    # The simulator has to be chosen before numba is imported: a process of its own.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(str(FOLDER / "device"), str(FOLDER / "runtime/decoding/flows/test_cuda.py")),
            str(FOLDER / "runtime/decoding/star/test_rasterise_cuda.py"),
        ],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
