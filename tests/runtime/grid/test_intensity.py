"""Normalisation: per image, monotonic, robust, calm with constant images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.runtime.grid.intensity import IntensityRange, estimate_range, normalise
from cellrt.runtime.model.card_parts import Normalisation


def test_percentiles_are_mapped_to_zero_and_one():
    image = np.random.default_rng(0).gamma(2, 300, (20, 40, 40)).astype(np.uint16)
    found = estimate_range(image)
    low, high = np.percentile(image, [1, 99.8])
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)
    values = normalise(np.array([low, high, (low + high) / 2]), found)
    np.testing.assert_allclose(values, [0, 1, 0.5], atol=1e-4)


@given(
    gain=st.floats(0.01, 100),
    offset=st.floats(-1000, 1000),
    seed=st.integers(0, 20),
)
def test_result_does_not_depend_on_gain_and_offset(gain, offset, seed):
    image = np.random.default_rng(seed).gamma(2, 1, (8, 16, 16))
    other = gain * image + offset
    a = normalise(image, estimate_range(image))
    b = normalise(other, estimate_range(other))
    np.testing.assert_allclose(a, b, atol=2e-2)


def test_order_is_kept_beyond_the_range():
    values = normalise(np.linspace(0, 1000, 500), IntensityRange(0, 10))
    assert (np.diff(values) > 0).all()
    assert values.max() < 6


def test_a_sample_of_a_large_image_is_close_to_all_of_it():
    rng = np.random.default_rng(1)
    image = rng.gamma(2, 300, (40, 400, 400)).astype(np.float32)
    found = estimate_range(image)
    low, high = np.percentile(image, [1, 99.8])
    assert found.low == pytest.approx(low, rel=0.05)
    assert found.high == pytest.approx(high, rel=0.05)


def test_sparse_signal_keeps_its_contrast():
    image = np.zeros((10, 100, 100), np.uint8)
    image[5, 50, 50:55] = 200
    assert estimate_range(image, Normalisation()) == IntensityRange(0, 200)


def test_a_constant_image_becomes_zero():
    image = np.full((4, 5, 6), 77, np.uint8)
    found = estimate_range(image)
    assert found.is_constant
    assert (normalise(image, found) == 0).all()
