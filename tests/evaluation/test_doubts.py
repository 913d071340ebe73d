"""An image that is taken for labels is told from labels of every kind."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from cellrt.errors import CellrtWarning
from cellrt.evaluation import evaluate
from cellrt.evaluation.doubts import doubt_labels


def dense(shape=(6, 40, 40), cell=5):
    """Labels of tissue without background, of small cells."""
    grid = np.indices(shape) // cell
    return (1 + np.ravel_multi_index(tuple(grid), tuple(grid.max(axis=(1, 2, 3)) + 1))).astype("u4")


def image(high, shape=(6, 40, 40)):
    """Noise that grows with the light, on cells and on background."""
    light = high * (0.2 + 0.8 * (dense(shape) % 2))
    return np.random.default_rng(0).poisson(light).astype(np.uint16)


@pytest.mark.parametrize("high", [60, 500, 20_000])
def test_an_image_looks_like_one(high):
    grey = image(high)
    assert "looks like an image" in doubt_labels(grey, "truth")
    assert "looks like an image" in doubt_labels(grey[0], "truth")
    assert "looks like an image" in doubt_labels(grey.astype(float)[None], "truth")


def points():
    labels = np.zeros((6, 40, 40), int)
    places = np.random.default_rng(0).choice(labels.size, 300, replace=False)
    labels.flat[places] = np.arange(1, 301)
    return labels


def threads():
    """Neurites that go through all slices, one voxel thick and next to each other."""
    labels = np.zeros((6, 40, 40), int)
    for at in range(40):
        labels[:, at, :] = at + 1
    return labels


@pytest.mark.parametrize(
    "labels",
    [
        dense(),
        dense(cell=2),
        np.random.default_rng(0).permutation(100_000)[dense()],
        points(),
        threads(),
        threads().transpose(0, 2, 1),
        np.random.default_rng(0).integers(0, 2, (6, 40, 40)),
        np.zeros((6, 40, 40), int),
        np.zeros((0, 40, 40), int),
        np.arange(40),
    ],
)
def test_labels_of_every_kind_do_not(labels):
    assert doubt_labels(labels, "truth") is None


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_of_many_cells_looks_like_one(value):
    grid = np.indices((40, 40)) % 10
    mask = (np.hypot(*(grid - 5)) < 4) * np.uint8(value)
    assert "looks like a mask" in doubt_labels(mask, "truth")
    assert "looks like a mask" in doubt_labels(np.repeat(mask[None], 5, 0), "truth")
    one = mask.copy()
    one[10:] = 0
    assert doubt_labels(one, "truth") is None  # four parts may be one cell's


def test_both_are_looked_at_and_scored_all_the_same():
    grey, labels = image(500), dense()
    with pytest.warns(CellrtWarning, match="the prediction looks like an image"):
        assert evaluate(grey, labels).predicted_cells > 40
    with pytest.warns(CellrtWarning, match="the truth looks like an image"):
        assert evaluate(labels, grey).true_cells > 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(labels, labels).mean_dice == 1
