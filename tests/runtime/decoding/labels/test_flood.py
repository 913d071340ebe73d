"""Flooding from seeds, against scikit-image's watershed."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import watershed

from cellrt.runtime.decoding.labels.flood import flood


@settings(max_examples=100)
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
    flood(labels, heights, np.zeros(seeds + 1, np.float32))
    np.testing.assert_array_equal(labels, expected)


def test_two_seeds_meet_in_the_valley_and_equal_ones_half_way():
    heights = np.array([[[9, 8, 7, 6, 3, 5, 6]]], np.uint8)
    labels = np.array([[[1, 0, 0, 0, 0, 0, 2]]], np.int32)
    flood(labels, heights, np.zeros(3, np.float32))
    assert labels.tolist() == [[[1, 1, 1, 1, 1, 2, 2]]]
    level = np.zeros((1, 1, 6), np.int32)
    level[0, 0, 0], level[0, 0, 5] = 1, 2
    flood(level, np.ones((1, 1, 6), np.uint8), np.zeros(3, np.float32))
    assert level.tolist() == [[[1, 1, 1, 2, 2, 2]]]


def test_nothing_grows_past_what_is_0_nor_from_nothing():
    labels = np.array([[[1, 0, 0, 0, 0]]], np.int32)
    flood(labels, np.array([[[5, 5, 0, 5, 5]]], np.uint8), np.zeros(2, np.float32))
    assert labels.tolist() == [[[1, 1, 0, 0, 0]]]
    nothing = np.zeros((2, 3, 4), np.int32)
    flood(nothing, np.full((2, 3, 4), 9, np.uint8), np.zeros(1, np.float32))
    assert not nothing.any()


def test_what_is_too_low_for_its_label_loses_it_when_it_has_grown():
    heights = np.array([[[1, 9, 2, 3, 8, 7, 4]]], np.uint8)
    labels = np.array([[[1, 0, 0, 0, 0, 0, 2]]], np.int32)
    flood(labels, heights, np.array([0, 3, 4.5], np.float32))
    # The seed itself, and the valley that the first label grows through.
    assert labels.tolist() == [[[0, 1, 0, 0, 2, 2, 0]]]


@settings(max_examples=50)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 10_000))
def test_equal_heights_are_labelled_in_the_order_in_which_they_are_touched(shape, seed):
    rng = np.random.default_rng(seed)
    heights = rng.integers(0, 4, shape, dtype=np.uint8)
    labels = rng.integers(-12, 4, shape).clip(0).astype(np.int32)
    expected = _flooded(labels, heights)
    least = np.array([0, 0, 2, 3], np.float32)
    expected[heights < least[expected]] = 0
    flood(labels, heights, least)
    np.testing.assert_array_equal(labels, expected)


def _flooded(labels, heights):
    """By one heap, in Python."""
    labels, touched, heap = labels.copy(), labels > 0, []

    def touch(place):
        for axis, step in ((0, -1), (1, -1), (2, -1), (2, 1), (1, 1), (0, 1)):
            near = list(place)
            near[axis] += step
            near = tuple(near)
            if 0 <= near[axis] < labels.shape[axis] and heights[near] and not touched[near]:
                touched[near] = True
                labels[near] = labels[place]
                heapq.heappush(heap, (-int(heights[near]), next(turns), near))

    turns = itertools.count()
    for place in map(tuple, np.argwhere(labels > 0)):
        touch(place)
    while heap:
        touch(heapq.heappop(heap)[2])
    return labels
