"""What runs on a GPU: on one where there is one, else in numba's simulator.

The simulator has to be chosen before numba is imported, so ``tests/test_simulator.py`` starts these
tests in a process of their own.
"""

from __future__ import annotations

import pytest
from numba import cuda


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:Simulator timings are bogus")


@pytest.fixture(scope="session", autouse=True)
def _a_device_or_the_simulator():
    if not cuda.is_available():
        pytest.skip("no GPU here; NUMBA_ENABLE_CUDASIM=1 runs this in numba's simulator")
