"""Where cells end that grow from their shapes by the network's map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cellrt.runtime.decoding.star.candidates import LEVELS
from cellrt.runtime.decoding.star.fit import fit_to_map, interpolated


def test_the_map_is_interpolated_between_the_middles_of_its_voxels():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    found = interpolated(coarse, 2, (6, 8, 10))
    places = [(np.arange(n) + 0.5) / 2 - 0.5 for n in found.shape]
    expected = ndimage.map_coordinates(
        coarse.astype(float), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    assert np.abs(found - expected).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(interpolated(coarse, 1, coarse.shape), coarse)
    high = interpolated(coarse, 2, (6, 8, 10), 99.5)
    np.testing.assert_array_equal(high, np.where(found >= 100, found, 0))


def test_cells_meet_in_the_valley_wherever_their_shapes_end():
    # Two slabs that touch at x = 12, distance to the border as a share of the largest; the shape
    # of the first was drawn too small, that of the second too large.
    inside = np.concatenate([np.minimum(np.arange(12) + 0.5, 11.5 - np.arange(12)) / 6] * 2)
    heights = np.rint(LEVELS * np.broadcast_to(inside, (8, 9, 24))).astype(np.uint8)
    cores = np.zeros((8, 9, 24), np.int32)
    cores[3:5, 3:6, 5:7], cores[3:5, 3:6, 14:20] = 1, 2
    heights[..., :2] = 0
    fit_to_map(cores, heights, np.zeros(3, np.float32))
    truth = np.zeros_like(cores)
    truth[..., 2:12], truth[..., 12:] = 1, 2
    np.testing.assert_array_equal(cores, truth)


def test_each_cell_ends_at_a_level_of_its_own_and_within_reach():
    heights = np.rint(LEVELS * np.broadcast_to(np.linspace(1, 0, 11), (3, 3, 11))).astype(np.uint8)
    cores = np.zeros((3, 3, 11), np.int32)
    cores[..., 0], heights[..., 9:] = 1, 0
    found = cores.copy()
    fit_to_map(found, heights.copy(), np.array([0, 0.45], np.float32))
    np.testing.assert_array_equal(found > 0, np.broadcast_to(np.arange(11) <= 5, found.shape))
    fit_to_map(cores, heights.copy(), np.zeros(2, np.float32))
    np.testing.assert_array_equal(cores > 0, np.broadcast_to(np.arange(11) < 9, found.shape))
