"""Masks that overlap: found again where a cell crosses another, and put into layers."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cellrt.runtime.results.masks import Mask, layers_of, masks_of, whole_masks
from cellrt.simulation import simulate_worms


def drawn(mask, shape):
    whole = np.zeros(shape, bool)
    whole[mask.box] = mask.inside
    return whole


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def a_cross():
    """A bar of 7 pixels along x, crossed by one of 5 along y that reaches farther."""
    labels = np.zeros((40, 60), np.int32)
    labels[16:23, 10:50] = 3
    labels[5:35, 28:33] = 7
    return labels


def test_what_lies_under_a_cell_that_crosses_is_found_again():
    labels = a_cross()
    masks = whole_masks(labels)
    assert sorted(masks) == [3, 7]
    assert np.array_equal(drawn(masks[7], labels.shape), labels == 7)
    bar = np.zeros(labels.shape, bool)
    bar[16:23, 10:50] = True
    found = drawn(masks[3], labels.shape)
    assert not (found & ~bar).any()
    assert iou(found, bar) > 0.95
    assert iou(labels == 3, bar) < 0.9


def test_pixels_of_no_cell_and_places_that_join_nothing_are_not_filled():
    labels = a_cross()
    labels[16:23, 28:33] = 0  # a gap between the parts that no cell covers
    labels[5:16, 28:33] = 0
    labels[23:35, 28:33] = 7
    found = drawn(whole_masks(labels)[3], labels.shape)
    assert np.array_equal(found, labels == 3)
    # A notch in one part, as narrow as the gap, with another cell in it, stays the other's.
    labels = a_cross()
    labels[14:19, 40:44] = 9
    found = drawn(whole_masks(labels)[3], labels.shape)
    assert found[16:23, 28:33].sum() > 20
    assert not found[labels == 9].any()


def test_a_cell_in_one_piece_stays_as_it_is():
    labels = np.zeros((20, 20), np.int32)
    labels[2:18, 2:6] = labels[2:6, 2:18] = labels[14:18, 2:18] = 1  # open to the right
    labels[8:12, 8:18] = 2
    for label, mask in whole_masks(labels).items():
        assert np.array_equal(drawn(mask, labels.shape), labels == label)


def test_worms_come_closer_to_the_whole_ones():
    gains = []
    for seed in range(2):
        stack = simulate_worms((200, 200), seed=seed)
        flat = stack.labels[0]
        for label, mask in whole_masks(flat).items():
            visible = flat == label
            if ndimage.label(visible, np.ones((3, 3)))[1] > 1:
                truth = (stack.layers == label).any(axis=0)
                gains.append(iou(drawn(mask, flat.shape), truth) - iou(visible, truth))
    assert len(gains) > 5
    assert min(gains) > -0.02
    assert np.mean(gains) > 0.05


def test_layers_hold_every_mask_once_and_keep_ids():
    stack = simulate_worms((160, 160), seed=5)
    masks = {}
    for label in range(1, stack.cell_count + 1):
        whole = (stack.layers == label).any(axis=0)
        masks[10 * label] = masks_of(whole.astype(np.int32))[1]
    layers = layers_of(masks, (160, 160))
    assert layers.dtype == np.int32
    for label, mask in masks.items():
        held = layers == label
        assert held.any(axis=(1, 2)).sum() == 1
        assert np.array_equal(held.any(axis=0), drawn(mask, (160, 160)))
    # No more layers than the pixel with the most worms and those that chance to meet need.
    assert len(layers) < len(masks) / 2
    assert layers_of({}, (4, 5)).shape == (1, 4, 5)


def test_labels_without_overlap_are_one_layer():
    labels = np.random.default_rng(0).integers(0, 5, (12, 13)).astype(np.int32)
    layers = layers_of(masks_of(labels), labels.shape)
    assert np.array_equal(layers, labels[None])
    assert isinstance(masks_of(labels)[1], Mask)
