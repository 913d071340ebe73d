"""Labels on another grid: smooth, aligned, and better than enlarging."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellrt.runtime.decoding.flows.packed_field import pack_field
from cellrt.runtime.decoding.flows.targets import tanh_flow
from cellrt.runtime.decoding.flows.upsample import upsample_labels
from cellrt.runtime.grid.resample import resample

OPTIONS = {"step": 4.0, "threshold": 0.5, "walls": False}


def balls(shape, centres, radius):
    """Label image of balls; centres and radius in fractions of the shape."""
    labels = np.zeros(shape, np.int32)
    grid = [(np.arange(n) + 0.5) / n for n in shape]
    z, y, x = np.meshgrid(*grid, indexing="ij")
    for number, (cz, cy, cx) in enumerate(centres, 1):
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return labels


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


CENTRES = [(0.3, 0.3, 0.3), (0.3, 0.3, 0.7), (0.7, 0.7, 0.31), (0.7, 0.69, 0.7)]


def coarse_and_fine(coarse, fine):
    truth = balls(fine, CENTRES, 0.19)
    labels = balls(coarse, CENTRES, 0.19)
    foreground = resample(truth > 0, coarse)
    return labels, pack_field(tanh_flow(labels), foreground), truth


@pytest.mark.parametrize("fine", [(96, 96, 96), (48, 96, 96), (40, 70, 110), (24, 96, 96)])
def test_better_than_nearest_neighbour_on_touching_balls(fine):
    labels, packed, truth = coarse_and_fine((32, 32, 32), fine)
    result = upsample_labels(labels, packed, fine, **OPTIONS)
    index = [((np.arange(n) + 0.5) * 32 / n).astype(int) for n in fine]
    enlarged = labels[np.ix_(*index)]
    for number in range(1, 5):
        ours = dice(result == number, truth == number)
        assert ours > dice(enlarged == number, truth == number)
        assert ours > 0.96


def test_the_same_grid_changes_nothing_inside_cells():
    labels, packed, _ = coarse_and_fine((32, 32, 32), (32, 32, 32))
    result = upsample_labels(labels, packed, (32, 32, 32), **OPTIONS)
    assert dice(result > 0, labels > 0) > 0.98
    inside = ndimage.binary_erosion(labels > 0)
    np.testing.assert_array_equal(result[inside], labels[inside])


def test_no_label_appears_that_was_not_there_and_background_stays():
    labels, packed, _ = coarse_and_fine((24, 28, 32), (61, 50, 40))
    labels[labels == 2] = 0
    result = upsample_labels(labels, packed, (61, 50, 40), **OPTIONS)
    assert set(np.unique(result)) <= {0, 1, 3, 4}
    nothing = upsample_labels(np.zeros_like(labels), packed, (61, 50, 40), **OPTIONS)
    assert not nothing.any()


def test_filled_walls_stay_filled():
    labels = np.ones((8, 8, 16), np.int32)
    labels[:, :, 8:] = 2
    foreground = np.ones(labels.shape, np.float32)
    foreground[:, :, 7:9] = 0
    packed = pack_field(tanh_flow(labels), foreground)
    options = {**OPTIONS, "walls": True}
    assert (upsample_labels(labels, packed, (16, 16, 32), **options) > 0).all()
    bare = upsample_labels(labels, packed, (16, 16, 32), **OPTIONS)
    assert (bare[:, :, 15:17] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (3, 1, 9)])
def test_thin_grids_work(shape):
    labels = np.ones((1, 3, 2), np.int32)
    packed = pack_field(np.zeros((3, 1, 3, 2), np.float32), np.ones((1, 3, 2), np.float32))
    assert (upsample_labels(labels, packed, shape, **OPTIONS) == 1).all()
