from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.runtime.grid.brightness import (
    Brightness,
    BrightnessMeter,
    measure_brightness,
    reference_height,
)

DIAMETER = 12


def cells(shape: tuple[int, int, int] = (48, 72, 72), step: int = 18) -> NDArray[np.float32]:
    """Balls of brightness 1 on a regular lattice, slightly blurred."""
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    distance = sum((axis % step - step // 2) ** 2 for axis in grid)
    return ndimage.gaussian_filter((distance <= (DIAMETER / 2) ** 2).astype(np.float32), 1)


def noisy(image: NDArray[np.float32], sigma: float = 0.05, seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return image + np.float32(sigma) * noise


def measured(image: NDArray[np.float32]) -> Brightness:
    return measure_brightness(enumerate(image), image.shape, DIAMETER)


def normalised(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return measured(image).normalise(image)


def test_background_becomes_zero_and_cells_about_one() -> None:
    image = 500 + 200 * noisy(cells())
    result = normalised(image)
    assert abs(float(np.median(result[cells() < 0.01]))) < 0.1
    assert 0.7 < float(np.median(result[cells() > 0.9])) < 1.3


@given(gain=st.floats(0.01, 1e4), offset=st.floats(-1e3, 1e4))
@settings(max_examples=20)
def test_gain_and_offset_of_the_camera_do_not_matter(gain: float, offset: float) -> None:
    image = noisy(cells())
    expected = normalised(image)
    # float32 keeps seven digits of a large offset.
    tolerance = 0.02 + 1e-5 * abs(offset) / gain
    np.testing.assert_allclose(
        normalised((image * gain + offset).astype(np.float32)), expected, atol=tolerance
    )


def test_how_cells_lie_on_the_blocks_hardly_matters() -> None:
    # Few and small ones, so that no cell makes up for another.
    few = np.zeros((48, 64, 64), np.float32)
    few[14, 14, 14] = few[30, 40, 20] = few[20, 44, 46] = 1
    few = ndimage.gaussian_filter(few, 1.5)
    few /= few.max()
    heights = []
    for shift in range(4):
        image = noisy(np.pad(few, (shift, 0)), 0.01)
        heights.append(measure_brightness(enumerate(image), image.shape, 16).reference)
    assert max(heights) < 1.05 * min(heights)


def test_a_larger_empty_field_changes_nothing() -> None:
    image = noisy(cells())
    wide = noisy(np.pad(cells(), 60), seed=1)
    inner = tuple(slice(60, -60) for _ in range(3))
    wide[inner] = image
    assert measured(wide).reference == pytest.approx(measured(image).reference, rel=0.03)
    np.testing.assert_allclose(normalised(wide)[inner], normalised(image), atol=0.25)


def test_dirt_does_not_move_the_rest() -> None:
    image = noisy(cells())
    dirty = image.copy()
    dirty[20:28, 30:38, 30:38] = 100
    assert measured(dirty).reference == pytest.approx(measured(image).reference, rel=0.15)
    far = np.s_[:, :, 60:]
    np.testing.assert_allclose(normalised(dirty)[far], normalised(image)[far], rtol=0.3, atol=0.1)


@pytest.mark.parametrize("specks", [3, 12, 40])
@pytest.mark.parametrize("size", [1, 2])
def test_specks_are_no_cells_however_bright_and_many(specks: int, size: int) -> None:
    image = noisy(cells())
    dirty = image.copy()
    rng = np.random.default_rng(specks)
    for z, y, x in rng.integers(0, np.array(image.shape) - size, (specks, 3)):
        dirty[z : z + size, y : y + size, x : x + size] = 3000
    assert measured(dirty).reference == pytest.approx(measured(image).reference, rel=0.2)


def test_small_cells_are_not_taken_for_specks_among_haze() -> None:
    # Smaller than blocks, as where the search for their size begins too high.
    small = noisy(np.zeros((48, 72, 72), np.float32), 0.002)
    for z, y, x in np.random.default_rng(1).integers(0, (46, 70, 70), (80, 3)):
        small[z : z + 2, y : y + 2, x : x + 2] = 1
    haze = np.zeros_like(small)
    haze[20:36, 10:30, 10:30] = haze[20:36, 40:60, 40:60] = 0.05
    among = small + ndimage.gaussian_filter(haze, 2)
    assert measured(among).reference == pytest.approx(measured(small).reference, rel=0.2)


def test_light_from_one_side_is_followed() -> None:
    ramp = np.linspace(0.25, 1, 72, dtype=np.float32)
    image = cells() * ramp + 0.01 * noisy(np.zeros((48, 72, 72), np.float32), 1.0)
    result = normalised(image)
    core = cells() > 0.9
    dim, bright = (float(np.median(result[..., s][core[..., s]])) for s in (np.s_[:18], np.s_[54:]))
    assert 0.5 < dim / bright < 1.2


def test_stray_light_along_an_axis_is_taken_away() -> None:
    ramp = np.linspace(0, 1, 72, dtype=np.float32)
    result = normalised(noisy(cells()) + ramp)
    background = cells() < 0.01
    for part in (np.s_[..., 6:30], np.s_[..., 42:66]):
        assert abs(float(np.median(result[part][background[part]]))) < 0.25


def test_noise_alone_stays_small() -> None:
    image = noisy(np.zeros((48, 72, 72), np.float32), 3.0)
    brightness = measured(image)
    assert brightness.reference == 0
    assert float(np.std(brightness.normalise(image))) < 0.6


def test_fill_takes_no_part_and_becomes_zero() -> None:
    image = 400 + 100 * noisy(cells())
    fill = np.zeros(image.shape, bool)
    fill[:, :, :24] = True
    filled = np.where(fill, 0, image).astype(np.float32)
    meter = BrightnessMeter(image.shape, DIAMETER)
    for z, plane in enumerate(filled):
        meter.add(z, plane, fill[z])
    brightness = meter.measure()
    result = brightness.normalise(filled, fill=fill)
    assert not result[fill].any()
    whole = measured(image[:, :, 24:])
    assert brightness.reference == pytest.approx(whole.reference, rel=0.1)


def test_a_box_is_normalised_as_it_is_within_the_whole() -> None:
    image = noisy(cells() * np.linspace(0.3, 1, 72, dtype=np.float32))
    brightness = measured(image)
    box = np.s_[7:31, 13:50, 20:64]
    np.testing.assert_array_equal(
        brightness.normalise(image[box], (7, 13, 20)), brightness.normalise(image)[box]
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (3, 2, 70)])
def test_small_images_are_measured(shape: tuple[int, int, int]) -> None:
    image = noisy(np.ones(shape, np.float32))
    assert np.isfinite(normalised(image)).all()
    assert np.isfinite(normalised(np.full(shape, 7, np.float32))).all()


def test_the_reference_is_a_cells_among_haze_and_dirt() -> None:
    rng = np.random.default_rng(0)
    cell = rng.normal(1, 0.1, 40)
    assert reference_height(np.float32([])) == 0
    assert reference_height(cell.astype(np.float32)) == pytest.approx(1, rel=0.05)
    with_dirt = np.concatenate([cell, [30.0, 50.0]]).astype(np.float32)
    assert reference_height(with_dirt) == pytest.approx(1, rel=0.15)
    with_haze = np.concatenate([cell, np.full(60, 0.1)]).astype(np.float32)
    assert reference_height(with_haze) == pytest.approx(1, rel=0.15)
