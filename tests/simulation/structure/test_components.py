"""Largest components, filling and numbering of labels on hand-made volumes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellrt.simulation.structure.components import keep_largest_components


def line(*values):
    return np.array(values, np.int32).reshape(1, 1, -1)


def test_smaller_pieces_vanish_and_numbers_close_up():
    out = keep_largest_components(line(3, 3, 0, 3, 7, 7, 7))
    assert out.ravel().tolist() == [1, 1, 0, 0, 2, 2, 2]


def test_small_cells_vanish():
    out = keep_largest_components(line(1, 0, 2, 2, 0), min_voxels=2)
    assert out.ravel().tolist() == [0, 0, 1, 1, 0]


def test_filling_gives_pieces_to_the_touching_cell():
    out = keep_largest_components(line(1, 1, 1, 2, 1, 2, 2), fill=True)
    assert out.ravel().tolist() == [1, 1, 1, 1, 2, 2, 2]


def test_a_piece_that_touches_no_cell_becomes_background():
    out = keep_largest_components(line(1, 1, 0, 1), fill=True)
    assert out.ravel().tolist() == [1, 1, 0, 0]


def test_diagonal_contact_does_not_connect():
    labels = np.zeros((1, 2, 3), np.int32)
    labels[0, 0, :2] = 1
    labels[0, 1, 2] = 1
    assert np.count_nonzero(keep_largest_components(labels)) == 2


def test_no_cells_stay_no_cells():
    assert not keep_largest_components(np.zeros((2, 3, 4), np.int32), fill=True).any()


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_every_label_is_one_component_and_nothing_is_invented(seed, count, fill):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count + 1, (4, 7, 6)).astype(np.int32)
    out = keep_largest_components(labels, min_voxels=2, fill=fill)
    assert (out[labels == 0] == 0).all()
    present = np.unique(out[out > 0])
    assert present.tolist() == list(range(1, len(present) + 1))
    for label in present:
        assert ndimage.label(out == label)[1] == 1
