"""Worms that overlap in one slice, by two kinds of contrast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellrt.errors import UsageError
from cellrt.simulation import simulate_worms
from cellrt.simulation.structure.curves import height_of

CONTRASTS = ("brightfield", "fluorescence")


def one_by_one(layers):
    """The mask of each worm, and that of label 0 first."""
    return [(layers == label).any(axis=0) for label in range(layers.max() + 1)]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_truth_is_whole_worms_of_which_some_overlap(seed):
    stack = simulate_worms((200, 240), seed=seed)
    layers = stack.layers
    assert stack.image.shape == stack.labels.shape == (1, 200, 240)
    assert stack.image.dtype == np.uint16
    assert layers.shape[1:] == (200, 240)
    assert len(layers) > 1
    assert stack.cell_count == layers.max() > 8
    of = [np.unique(layer[layer > 0]) for layer in layers]
    assert sorted(np.concatenate(of)) == list(range(1, stack.cell_count + 1))  # each in one layer
    masks = one_by_one(layers)[1:]
    assert all(ndimage.label(mask, np.ones((3, 3)))[1] == 1 for mask in masks)
    areas = np.array([mask.sum() for mask in masks])
    assert np.sqrt(4 / np.pi * np.median(areas)) == pytest.approx(32, rel=0.15)
    covers = np.sum(masks, axis=0)
    assert (covers > 1).sum() > 50
    # Long: the disc of their area is much shorter than they are.
    reach = [max(np.ptp(ys), np.ptp(xs)) for ys, xs in (np.nonzero(mask) for mask in masks)]
    assert np.median(reach) > 1.6 * 32
    # Flat labels show the uppermost of the worms that lie there.
    assert np.array_equal(stack.labels[0] > 0, covers > 0)
    assert np.array_equal(stack.labels[0], layers.max(axis=0))


def test_contrast_is_what_it_is_called_and_adds_up_where_worms_cross():
    grey = {}
    for contrast in CONTRASTS:
        stack = simulate_worms((200, 240), contrast=contrast, photons=3000, seed=1)
        covers = (stack.layers > 0).sum(axis=0)
        middle = (slice(60, 140), slice(60, 180))  # far from the wall of the well
        image = stack.image[0][middle].astype(float)
        grey[contrast] = [image[covers[middle] == k].mean() for k in range(3)]
    empty, one, two = grey["brightfield"]
    assert empty > one > two
    empty, one, two = grey["fluorescence"]
    assert empty < one < two


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    one, same, other = (simulate_worms((96, 96), seed=seed) for seed in (3, 3, 4))
    assert one.image.tobytes() == same.image.tobytes()
    assert one.layers.tobytes() == same.layers.tobytes()
    assert (one.image != other.image).any()


def test_an_empty_well_and_a_full_one_end():
    empty = simulate_worms((64, 64), filling=0.0)
    assert empty.cell_count == 0
    assert empty.layers.shape == (1, 64, 64)
    assert simulate_worms((96, 96), filling=1.0, diameter_voxels=16).cell_count > 10


@pytest.mark.parametrize(
    "wrong", [{"filling": 1.5}, {"diameter_voxels": 2}, {"photons": 0}, {"contrast": "phase"}]
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        simulate_worms((64, 64), **wrong)


def test_a_body_gets_thinner_along_its_line():
    line = np.stack([np.full(3, 20.0), np.array([10.0, 40.0, 70.0])], axis=1)
    box, height = height_of(line, np.array([8.0, 6.0, 2.0]), (40, 90))
    whole = np.zeros((40, 90))
    whole[box] = height
    # The radii at the points and between, from a row through each.
    widths = (whole > 0).sum(axis=0)
    assert [widths[x] for x in (10, 25, 40, 55, 70)] == pytest.approx([16, 14, 12, 8, 4], abs=1.5)
    assert whole[20, 40] == pytest.approx(6, abs=0.1)
