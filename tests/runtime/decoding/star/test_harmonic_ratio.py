"""Voxels compared with a shape of harmonics many at a time, against one by one as on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from cellrt.runtime.decoding.star.harmonic_ratio import (
    harmonic_ratio,
    harmonic_ratios,
    radius_along,
    recurrence,
)
from cellrt.runtime.decoding.star.harmonics import norms


@pytest.mark.parametrize("order", [1, 5, 11])
@pytest.mark.parametrize("count", [0, 1, 64, 200])
def test_many_at_a_time_are_to_the_bit_what_each_is_alone(order, count):
    rng = np.random.default_rng(count)
    c = rng.normal(0, 0.5, (order + 1) ** 2)
    c[0] = 20.0
    c *= norms(order)
    given, reach, limit = (c, order, *recurrence(order)), 8.0, 1.2
    away = rng.uniform(-8, 8, (3, count + 3))
    away[:, :1] = 0.0  # in the centre
    found = np.full(count + 3, 9, np.float32)
    harmonic_ratios(*given, reach, limit, away, count, found)
    for k in range(count):
        distance = np.sqrt(away[0, k] * away[0, k] + away[1, k] * away[1, k] + away[2, k] ** 2)
        radius = radius_along(*given, *(away[:, k] * (1 / distance if distance else 0.0)))
        expected = harmonic_ratio(distance, radius, limit) if distance <= reach else -1
        assert found[k] == np.float32(expected)
    assert (found[count:] == 9).all()
    assert count < 200 or 0.1 < (found[:count] >= 0).mean() < 0.9
