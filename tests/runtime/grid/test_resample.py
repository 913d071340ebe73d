"""Resampling: grids aligned, constants and ramps kept, no aliasing."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellrt.runtime.grid.mended_image import as_it_is
from cellrt.runtime.grid.resample import axis_taps, resample, resample_mended, resample_planes

edges = st.integers(1, 30)


@given(source=edges, target=edges)
def test_weights_of_every_voxel_sum_to_one_and_stay_inside(source, target):
    first, weights = axis_taps(source, target)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert (weights >= 0).all()
    assert (first >= 0).all()
    assert (first + weights.shape[1] <= source).all()


@settings(max_examples=30)
@given(shape=st.tuples(edges, edges, edges), target=st.tuples(edges, edges, edges))
def test_a_constant_image_stays_constant(shape, target):
    result = resample(np.full(shape, 7, np.uint16), target)
    assert result.shape == target
    np.testing.assert_allclose(result, 7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_the_same_shape_returns_the_same_values(dtype):
    image = np.random.default_rng(0).integers(0, 100, (5, 6, 7)).astype(dtype)
    np.testing.assert_allclose(resample(image, (5, 6, 7)), image, rtol=1e-6)


def test_a_ramp_keeps_its_position_when_the_grid_changes():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (4, 4, 40))
    for target in (10, 20, 80, 100):
        expected = (np.arange(target) + 0.5) * 40 / target - 0.5
        inner = slice(2, -2)
        result = resample(ramp, (4, 4, target))
        np.testing.assert_allclose(result[0, 0, inner], expected[inner], atol=0.6)


def test_upsampling_agrees_with_scipy_away_from_the_border():
    image = np.random.default_rng(1).random((6, 7, 8), dtype=np.float32)
    expected = ndimage.zoom(image, 2, order=1, mode="nearest", grid_mode=True)
    result = resample(image, (12, 14, 16))
    np.testing.assert_allclose(result[2:-2, 2:-2, 2:-2], expected[2:-2, 2:-2, 2:-2], atol=1e-5)


def test_downsampling_averages_instead_of_aliasing():
    checkers = (np.indices((32, 32, 32)).sum(axis=0) % 2).astype(np.float32)
    result = resample(checkers, (8, 8, 8))
    np.testing.assert_allclose(result, 0.5, atol=0.05)


def test_single_planes_equal_the_planes_of_the_whole():
    image = np.random.default_rng(2).random((9, 10, 11), dtype=np.float32)
    whole = resample(image, (6, 7, 8))
    for z, plane in resample_planes(image, (6, 7, 8), planes=[5, 0, 3]):
        np.testing.assert_array_equal(plane, whole[z])


def test_what_is_kept_of_one_slice_is_of_that_box_and_shape():
    image = as_it_is(np.random.default_rng(0).integers(0, 255, (1, 30, 40)).astype(np.uint8))
    shapes = ((1, 20, 25), (1, 25, 20), (1, 20, 25))
    box = (slice(0, 1), slice(5, 25), slice(10, 40))
    for part in (image, image.crop(box), image):
        for shape in shapes:
            ((z, plane, fill),) = resample_mended(part, shape)
            whole = part.read((0, 0, 0), part.shape)[0]
            assert (z, fill) == (0, None)
            np.testing.assert_array_equal(plane, resample(whole, shape)[0])
    assert not pickle.loads(pickle.dumps(image)).resampled
