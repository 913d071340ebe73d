"""Flooding from seeds, against scikit-image's watershed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import watershed

from cellrt.runtime.decoding.labels.flood import flood


@settings(deadline=None, max_examples=100)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 10_000),
    seeds=st.integers(1, 5),
)
def test_labels_are_those_of_a_watershed(shape, seed, seeds):
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    # All heights differ, as the order of equal ones is another there.
    heights = rng.permutation(256)[:size].reshape(shape).astype(np.uint8)
    labels = np.zeros(shape, np.int32)
    places = rng.choice(size, min(seeds, size), replace=False)
    labels.ravel()[places] = 1 + np.arange(len(places))
    mask = (heights > 0) | (labels > 0)
    # Seeds, wherever they lie, are there before anything is flooded, one after the other.
    order = np.arange(size).reshape(shape)
    depths = np.where(labels > 0, order - 9999, -heights.astype(int))
    expected = watershed(depths, labels, mask=mask)
    flood(labels, heights)
    np.testing.assert_array_equal(labels, expected)


def test_two_seeds_meet_in_the_valley_and_equal_ones_half_way():
    heights = np.array([[[9, 8, 7, 6, 3, 5, 6]]], np.uint8)
    labels = np.array([[[1, 0, 0, 0, 0, 0, 2]]], np.int32)
    flood(labels, heights)
    assert labels.tolist() == [[[1, 1, 1, 1, 1, 2, 2]]]
    level = np.zeros((1, 1, 6), np.int32)
    level[0, 0, 0], level[0, 0, 5] = 1, 2
    flood(level, np.ones((1, 1, 6), np.uint8))
    assert level.tolist() == [[[1, 1, 1, 2, 2, 2]]]


def test_nothing_grows_past_what_is_0_nor_from_nothing():
    labels = np.array([[[1, 0, 0, 0, 0]]], np.int32)
    flood(labels, np.array([[[5, 5, 0, 5, 5]]], np.uint8))
    assert labels.tolist() == [[[1, 1, 0, 0, 0]]]
    nothing = np.zeros((2, 3, 4), np.int32)
    flood(nothing, np.full((2, 3, 4), 9, np.uint8))
    assert not nothing.any()
