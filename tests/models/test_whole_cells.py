from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from cellrt.models.whole_cells import UNKNOWN_DEPTH, find_whole_cells

MARGIN = 3


def boxes(seed: int, shape: tuple[int, int, int] = (14, 16, 18)) -> np.ndarray:
    """Random boxes of labels -1 to 5 over each other."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for _ in range(9):
        low = rng.integers(-2, shape)
        high = low + rng.integers(2, 8, 3)
        box = tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))
        labels[box] = rng.integers(-1, 6)
    return labels


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_depth_is_the_mean_of_what_a_distance_transform_of_each_cell_says(seed: int) -> None:
    labels = boxes(seed)
    expected = np.where(labels < 0, np.nan, 0.0)
    owner = np.zeros(labels.shape, np.int64)
    for cell in np.unique(labels[labels > 0]):
        mask = labels == cell
        faces = [mask.take(end, axis) for axis in range(3) for end in (0, -1)]
        distance = distance_transform_edt(mask)
        expected[mask] = (
            np.nan if any(f.any() for f in faces) else (distance / distance.max())[mask]
        )
        owner[mask] = cell
    found = find_whole_cells(labels, MARGIN)
    for place in np.ndindex(found.depth.shape):
        block = tuple(slice(MARGIN + 2 * i, MARGIN + 2 * i + 2) for i in place)
        if np.isnan(expected[block]).any():
            assert found.depth[place] == UNKNOWN_DEPTH
            assert found.owner[place] == 0
            continue
        np.testing.assert_allclose(found.depth[place], expected[block].mean(), rtol=1e-5)
        number = found.owner[place]
        assert (number > 0) == (expected[block].max() > 0)
        if number:
            # Cells are renumbered; the block's owner has its deepest voxel.
            mine = labels == owner[block].ravel()[expected[block].argmax()]
            np.testing.assert_array_equal(found.labels == number, mine)


def test_a_cell_beyond_the_patch_is_no_part_of_it() -> None:
    labels = np.zeros((16, 16, 16), np.int32)
    labels[1:4, 5:9, 5:9] = 3  # in the margin only
    labels[6:10, 6:10, 6:10] = 7
    found = find_whole_cells(labels, 4)
    assert found.count == 1
    assert found.depth.shape == found.owner.shape == (4, 4, 4)
    assert (found.labels == np.where(labels == 7, 1, 0)).all()


def test_a_cell_that_the_stack_cuts_counts_and_one_that_goes_on_does_not() -> None:
    labels = np.zeros((16, 16, 16), np.int32)
    labels[:4] = -1  # beyond the stack
    labels[4:9, 5:9, 5:9] = 1
    assert (find_whole_cells(labels, 2).depth[1:3, 2, 2] > 0).all()
    labels[:4, 5:9, 5:9] = 1  # and goes on beyond what is seen
    assert (find_whole_cells(labels, 2).depth[1:3, 2, 2] == UNKNOWN_DEPTH).all()


def test_labels_without_cells() -> None:
    found = find_whole_cells(np.zeros((8, 8, 8), np.int32), 2)
    assert found.count == 0
    assert not found.depth.any()
    found = find_whole_cells(np.full((8, 8, 8), -1, np.int32), 2)
    assert (found.depth == UNKNOWN_DEPTH).all()
