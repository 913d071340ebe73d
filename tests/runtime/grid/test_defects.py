from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.runtime.grid.defects import computable, find_defects
from cellrt.runtime.grid.mended_image import MendedImage, as_it_is, mended
from cellrt.runtime.grid.resample import resample, resample_mended

SHAPE = (24, 60, 64)


def stack(offset: float = 400, seed: int = 0) -> NDArray[np.uint16]:
    """Cells on a dark background, as a camera with an offset stores them."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    cells = ((z - 12) % 16 - 8) ** 2 + (y % 20 - 10) ** 2 + (x % 20 - 10) ** 2 < 36
    light = 300 * ndimage.gaussian_filter(cells.astype(float), 1) + 20
    return (rng.poisson(light) + rng.normal(offset, 4, SHAPE)).astype(np.uint16)


def whole(image: MendedImage) -> NDArray[np.float32]:
    return image.read((0, 0, 0), image.shape)[0]


@pytest.mark.parametrize("offset", [100, 400, 1000])
def test_a_clean_stack_is_left_as_it_is(offset: float) -> None:
    image = stack(offset)
    defects = find_defects(image)
    assert defects.fill is None
    assert defects.mended == ()
    assert defects.lost == ()
    np.testing.assert_array_equal(whole(mended(image)), image)


@pytest.mark.parametrize("make", ["rotated", "padded", "corner"])
def test_fill_is_found(make: str) -> None:
    image = stack()
    if make == "rotated":
        filled = ndimage.rotate(image, 25, (1, 2), order=1, cval=0)
        expected = ndimage.rotate(np.ones(SHAPE), 25, (1, 2), order=0, cval=0) == 0
    elif make == "padded":
        filled = np.pad(image, 8)
        expected = np.pad(np.zeros(SHAPE, bool), 8, constant_values=True)
    else:
        expected = np.zeros(SHAPE, bool)
        expected[:, :15, :15] = True
        filled = np.where(expected, 0, image)
    found = mended(filled)
    assert found.defects.fill == 0
    _, fill = found.read((0, 0, 0), found.shape)
    assert fill is not None
    assert (fill == expected).mean() > 0.98


@pytest.mark.parametrize("depth", [1, 24])
def test_fill_is_found_beside_an_image_that_is_nearly_as_dark(depth: int) -> None:
    # 8 bits without an offset: from 4 on, a tenth below 11, a half below 16.
    rng = np.random.default_rng(0)
    image = (4 + rng.gamma(10, 1.25, (depth, 120, 110))).clip(4, 255).astype(np.uint8)
    expected = np.zeros(image.shape, bool)
    expected[:, :40, :30] = True
    found = find_defects(np.where(expected, 0, image))
    assert found.fill == 0
    assert found.fill_share == pytest.approx(expected.mean(), abs=0.02)
    for darker in (2, 4, 8):  # what a clipped background has of zeros has neighbours in grey
        assert find_defects(np.maximum(image.astype(int) - 4 - darker, 0)).fill is None


def test_a_background_that_reaches_zero_is_no_fill() -> None:
    image = stack(0)
    dark = np.where(image < 22, 0, image - 22)
    for grey in (dark, dark // 8, (dark > 100).astype(np.uint8)):
        assert find_defects(grey).fill is None


def test_background_that_was_subtracted_is_no_fill() -> None:
    labels = stack(0) > 150
    for image in (labels * np.uint16(500), np.where(labels, stack(), 0)):
        assert find_defects(image).fill is None


@pytest.mark.parametrize("gain", [8.0, 2.5, 0.3])
def test_a_slice_of_another_brightness_is_brought_back(gain: float) -> None:
    image = stack(100).astype(np.float32)
    changed = image.copy()
    changed[9] *= gain
    found = mended(changed.astype(np.uint16))
    assert found.defects.mended == (9,)
    contrast = float(np.ptp(np.percentile(image[9], [5, 98])))
    difference = np.abs(whole(found)[9] - image[9])
    assert float(np.mean(difference)) < 0.1 * contrast
    np.testing.assert_array_equal(whole(found)[8], image[8])


@pytest.mark.parametrize("dim", range(6))
def test_beside_a_dim_slice_no_other_one_is_changed(dim: int) -> None:
    image = np.stack([stack(offset=0, seed=seed)[12] for seed in range(6)])
    image[dim] = image[dim] * 0.2
    assert set(find_defects(image).mended) <= {dim}


def test_cells_in_one_slice_only_are_not_taken_for_a_bright_slice() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (9, 64, 64))
    y, x = np.indices((64, 64))
    image[4] += 400 * ((y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 25)
    assert find_defects(image.astype(np.float32)).mended == ()


@pytest.mark.parametrize("value", [0, 100])
def test_lost_slices_get_the_mean_of_their_neighbours(value: int) -> None:
    image = stack(100)
    changed = image.copy()
    changed[7:9] = value
    found = mended(changed)
    assert found.defects.lost == (7, 8)
    result, fill = found.read((0, 0, 0), SHAPE)
    assert fill is None
    expected = (image[6].astype(np.float32) + image[9]) / 2
    np.testing.assert_allclose(result[7], expected)
    np.testing.assert_allclose(result[8], expected)


def test_hot_pixels_are_lowered_and_nothing_else() -> None:
    image = stack(100)
    rng = np.random.default_rng(1)
    hot = rng.random(SHAPE) < 0.001
    changed = np.where(hot, 5000, image).astype(np.uint16)
    result = whole(mended(changed))
    assert (result[hot] < 1000).mean() > 0.98
    assert (result[~hot] == image[~hot]).mean() > 0.999


def test_a_box_is_what_it_is_within_the_whole() -> None:
    image = np.pad(stack(), ((0, 0), (5, 5), (0, 0)))
    image[9] = np.minimum(image[9].astype(np.int64) * 4, 65535)
    image[3, 20, 20] = 60000
    found = mended(image)
    voxels, fill = found.read((0, 0, 0), found.shape)
    box = found.crop((slice(2, 12), slice(1, 30), slice(15, 40)))
    assert box.shape == (10, 29, 25)
    part, part_fill = box.read((1, 2, 3), (9, 25, 20))
    np.testing.assert_array_equal(part, voxels[3:11, 3:26, 18:35])
    assert fill is not None
    assert part_fill is not None
    np.testing.assert_array_equal(part_fill, fill[3:11, 3:26, 18:35])


def test_constant_images_have_no_defects() -> None:
    for image in (np.zeros((6, 9, 9), np.uint8), np.full((1, 4, 4), 7.0, np.float32)):
        defects = find_defects(image)
        assert defects.constant
        assert defects.fill is None


def test_fill_takes_no_part_in_what_lies_beside_it() -> None:
    image = np.full((8, 32, 32), 1000, np.uint16)
    image += np.random.default_rng(0).integers(0, 20, image.shape).astype(np.uint16)
    image[:, :, :9] = 0
    found = mended(image)
    assert found.defects.fill == 0
    for _, plane, fill in resample_mended(found, (5, 21, 21)):
        assert fill is not None
        assert plane[~fill].min() > 990
        assert 0.2 < fill.mean() < 0.35


def test_without_defects_an_image_is_resampled_as_ever() -> None:
    image = stack()
    planes = {z: plane for z, plane, _ in resample_mended(as_it_is(image), (10, 30, 40))}
    np.testing.assert_array_equal(
        np.stack([planes[z] for z in range(10)]), resample(image, (10, 30, 40))
    )


@pytest.mark.parametrize("kind", [">u2", ">f4", "<f8", "f2", ">i4", "u1"])
def test_byte_order_and_type_do_not_matter(kind: str) -> None:
    image = np.clip(stack(100) // 4, 0, 255)
    image[4, 30, 30] = 255
    changed = image.astype(kind)
    expected, found = mended(image), mended(changed)
    np.testing.assert_array_equal(whole(found), whole(expected))
    np.testing.assert_array_equal(found.sample(9), expected.sample(9))


@pytest.mark.parametrize(
    ("kind", "offset"), [("u4", 4e9), ("i4", -2e9), ("f8", 1e12), ("i8", 1e15)]
)
def test_a_large_offset_leaves_the_image_as_it_is(kind: str, offset: float) -> None:
    image = stack(100)
    moved = (image.astype(np.float64) + offset).astype(kind)
    for look in (mended, as_it_is):
        expected, found = whole(look(image)), whole(look(moved))
        np.testing.assert_array_equal(found - found.min(), expected - expected.min())


@pytest.mark.parametrize(
    ("kind", "offset"),
    [("u8", 2**60), (">u8", 2**64 - 2**20), ("i8", -(2**62)), ("<i8", 2**60), ("i8", -(2**63))],
)
def test_whole_numbers_keep_all_their_digits(kind: str, offset: int) -> None:
    image = stack(100)
    moved = (image.astype(object) + offset).astype(kind)
    for look in (mended, as_it_is):
        expected, found = whole(look(image)), whole(look(moved))
        np.testing.assert_array_equal(found - found.min(), expected - expected.min())


def test_whole_numbers_below_the_sampled_smallest_stay_below() -> None:
    values = np.array([-(2**63), -5, 0, 7, 2**63 - 1])
    found = computable(values, 2**40)
    np.testing.assert_array_equal(found, (values.astype(np.float64) - 2**40).astype(np.float32))
    found = computable(np.array([0, 2**64 - 1], np.uint64), 2**60)
    np.testing.assert_allclose(found, [-(2.0**60), 2.0**64 - 2.0**60], rtol=1e-6)


def test_only_a_plateau_at_the_end_of_the_range_is_saturated() -> None:
    image = stack(100)
    assert find_defects(image).saturated == 0
    cut = np.minimum(image.astype(np.int64) * 40, 4095).astype(np.uint16)
    assert find_defects(cut).saturated > 0.01
    assert find_defects(np.minimum(image, 300)).saturated == 0
