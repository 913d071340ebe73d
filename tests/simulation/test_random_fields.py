"""Smooth noise: standard moments, the asked correlation length, reproducible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.simulation.random_fields import smooth_noise


def autocorrelation(field, axis, lag):
    a = np.take(field, range(lag, field.shape[axis]), axis)
    b = np.take(field, range(field.shape[axis] - lag), axis)
    return float((a * b).mean() / (field**2).mean())


def test_moments_are_those_of_a_standard_normal():
    field = smooth_noise((64, 64, 64), 3.0, np.random.default_rng(1))
    assert abs(field.mean()) < 0.1
    assert field.std() == pytest.approx(1.0, abs=0.05)
    # Variance is even over the volume, not lower between the nodes.
    spread = [smooth_noise((12, 12, 12), 4.0, np.random.default_rng(s)) for s in range(300)]
    assert np.std(spread, axis=0).std() < 0.06


def test_correlation_follows_the_scale_of_each_axis():
    field = smooth_noise((80, 80, 80), (2.0, 4.0, 8.0), np.random.default_rng(2))
    for axis, scale in enumerate((2, 4, 8)):
        assert autocorrelation(field, axis, scale) == pytest.approx(0.5, abs=0.12)
        assert abs(autocorrelation(field, axis, 4 * scale)) < 0.2


@settings(max_examples=30)
@given(
    st.tuples(*[st.integers(1, 13)] * 3),
    st.floats(0.2, 50.0),
    st.integers(0, 2**31),
)
def test_any_shape_is_filled_with_finite_reproducible_numbers(shape, scale, seed):
    first = smooth_noise(shape, scale, np.random.default_rng(seed))
    second = smooth_noise(shape, scale, np.random.default_rng(seed))
    assert first.shape == shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)
