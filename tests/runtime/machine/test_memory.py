from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cellrt.runtime.machine.memory import peak_memory_bytes


def test_the_peak_grows_with_what_is_held():
    before = peak_memory_bytes()
    held = np.ones(25_000_000)
    after = peak_memory_bytes()
    assert before is not None
    assert after is not None
    # Earlier tests may have held more.
    assert after >= max(before, held.nbytes)


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux counts")
def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it():
    np.ones(40_000_000)
    code = "from cellrt.runtime.machine.memory import peak_memory_bytes as p; print(p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150e6
