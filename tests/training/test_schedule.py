from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pydantic", reason="pydantic is not installed")

from cellrt.training.recipe import OptimTable
from cellrt.training.schedule import Progress, learning_rate


def test_the_larger_share_of_steps_and_minutes_counts() -> None:
    progress = Progress(OptimTable(max_steps=100, max_minutes=10))
    assert progress.share(25) == pytest.approx(0.25)
    progress.seconds_before = 300.0
    assert progress.share(25) == pytest.approx(0.5)
    assert progress.share(80) == pytest.approx(0.8)
    assert progress.share(1000) == 1.0


def test_the_rate_rises_then_falls_to_its_end() -> None:
    table = OptimTable(max_steps=1, learning_rate=1e-2, final_learning_rate=1e-4, warmup=0.1)
    rates = [learning_rate(share / 100, table) for share in range(101)]
    assert rates[0] < 1e-3
    assert rates[10] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-4)
    assert (np.diff(rates[10:]) <= 0).all()
