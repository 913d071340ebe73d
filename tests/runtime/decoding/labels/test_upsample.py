"""Cells on a finer grid end where the interpolated foreground says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellrt.runtime.decoding.labels.upsample import upsample_cells, upsample_masks


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), shape=st.tuples(*[st.integers(1, 9)] * 3))
def test_the_same_grid_changes_nothing_whatever_the_foreground_says(seed, shape):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, shape, np.int32)
    foreground = rng.integers(-300, 300, shape, np.int16)
    np.testing.assert_array_equal(upsample_cells(labels, foreground, 10.0, shape), labels)


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), shape=st.tuples(*[st.integers(1, 20)] * 3))
def test_a_foreground_that_is_the_mask_gives_the_borders_of_the_mask(seed, shape):
    labels = np.random.default_rng(seed).integers(0, 2, (4, 5, 6), np.int32)
    foreground = np.where(labels > 0, np.int16(1000), np.int16(0))
    found = upsample_cells(labels, foreground, 500.0, shape)
    axes = [
        np.clip((np.arange(m) + 0.5) * (n / m) - 0.5, 0, n - 1)
        for n, m in zip(labels.shape, shape, strict=True)
    ]
    mask = ndimage.map_coordinates(
        labels.astype(float), np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest"
    )
    clear = np.abs(mask - 0.5) > 1e-3
    np.testing.assert_array_equal(found[clear], upsample_masks(labels, shape)[clear])


@pytest.mark.parametrize("edge", [5.2, 5.5, 5.8])
def test_a_border_lies_between_pixels_where_the_foreground_puts_it(edge):
    # Each pixel's foreground is the share of it left of the edge; two cells meet in the middle.
    share = np.clip(edge - np.arange(12) + 0.5, 0, 1)
    foreground = np.tile(np.rint(1000 * share).astype(np.int16), (1, 8, 1))
    labels = np.zeros((1, 8, 12), np.int32)
    labels[:, :4], labels[:, 4:] = 1, 2
    labels[foreground < 500] = 0
    found = upsample_cells(labels, foreground, 500.0, (1, 80, 120))
    widths = (found > 0).sum(axis=2)
    assert np.abs(widths / 10 - (edge + 0.5)).max() <= 0.25
    assert set(np.unique(found[0, :40])) == {0, 1}
    assert set(np.unique(found[0, 40:])) == {0, 2}


def test_holes_that_were_filled_and_specks_that_were_removed_stay_so():
    labels = np.zeros((1, 9, 9), np.int32)
    labels[:, 2:7, 2:7] = 3
    foreground = np.where(labels > 0, np.int16(100), np.int16(-100))
    foreground[:, 4, 4], foreground[:, 0, 8] = -100, 100
    found = upsample_cells(labels, foreground, 0.0, (1, 36, 36))
    assert (found[0, 9:27, 9:27] == 3).all()
    assert not found[0, :4, 30:].any()
