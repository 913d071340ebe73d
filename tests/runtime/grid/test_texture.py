"""Where an image is busiest, and how alike its pixels are there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellrt.runtime.grid.mended_image import as_it_is, mended
from cellrt.runtime.grid.texture import (
    busiest_box,
    busiest_part,
    correlation,
    likeness,
    typical_box,
)

SIZE = (16, 64, 64)


def test_the_busiest_box_holds_the_signal():
    image = np.zeros((40, 120, 120), np.uint8)
    image[25:38, 80:110, 5:30] = np.random.default_rng(0).integers(0, 255, (13, 30, 25))
    box = busiest_box(mended(image), (20, 40, 40))
    assert image[box].sum() > 0.5 * image.sum()
    assert busiest_box(mended(image), (40, 120, 120)) == (
        slice(0, 40),
        slice(0, 120),
        slice(0, 120),
    )


@pytest.mark.parametrize("corner", [(30, 560, 1000), (3, 77, 411), (60, 1180, 5)])
def test_cells_in_a_wide_dark_field_are_found_wherever_they_lie(corner):
    rng = np.random.default_rng(3)
    image = rng.normal(100, 5, (90, 1240, 1240)).astype(np.float32)
    cells = tuple(slice(a, a + n) for a, n in zip(corner, (30, 54, 54), strict=True))
    image[cells] += 200 * (rng.random((30, 54, 54)) < 0.4)
    box = busiest_box(mended(image), (30, 54, 54))
    overlap = [
        max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in zip(box, cells, strict=True)
    ]
    assert np.prod(overlap) > 0.3 * 30 * 54 * 54


def test_fill_around_the_cells_is_not_where_an_image_is_busiest():
    rng = np.random.default_rng(4)
    image = np.zeros((40, 900, 900), np.uint16)
    image[5:35, 300:640, 200:700] = rng.normal(400, 5, (30, 340, 500))
    image[10:30, 500:540, 610:650] += (300 * (rng.random((20, 40, 40)) < 0.5)).astype(np.uint16)
    z, y, x = busiest_box(mended(image), (20, 40, 40))
    assert z.start < 30
    assert z.stop > 10
    assert 460 < y.start < 540
    assert 570 < x.start < 650


def test_a_typical_box_is_neither_the_busiest_nor_an_empty_one():
    rng = np.random.default_rng(5)
    image = np.zeros((1, 400, 600), np.float32)  # cells in two thirds, and a bright spot there
    image[:, :, 200:] = 100 * (rng.random((1, 400, 400)) < 0.4)
    image[:, 10:90, 510:590] *= 3
    z, y, x = typical_box(as_it_is(image), (1, 80, 80))
    seen = image[z, y, x]
    assert seen.shape == (1, 80, 80)
    assert seen.max() == 100
    assert typical_box(as_it_is(np.zeros((1, 90, 80))), (1, 80, 80))[0] == slice(0, 1)


def test_white_noise_has_nothing_in_common_and_a_constant_everything():
    noise = np.random.default_rng(1).normal(0, 1, SIZE).astype(np.float32)
    alike, chance = likeness(as_it_is(noise), SIZE)
    assert abs(alike) < 4 * chance
    assert likeness(as_it_is(np.ones(SIZE)), SIZE)[0] == 1.0


@pytest.mark.parametrize("distance", [1, 3, 6])
def test_blurred_noise_is_as_alike_as_theory_says(distance):
    # Gaussian blur of sigma s makes the correlation at a distance d to be exp(-d² / 4s²).
    noise = np.random.default_rng(2).normal(0, 1, (16, 256, 256))
    image = ndimage.gaussian_filter(noise, (0, 3, 3)).astype(np.float32)
    alike, _ = correlation(busiest_part(as_it_is(image), image.shape), distance)
    assert alike == pytest.approx(np.exp(-(distance**2) / 36), abs=0.03)
