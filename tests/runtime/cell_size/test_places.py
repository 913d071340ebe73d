"""Which parts of an image a probe for the cells' size looks at."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import cellrt
from cellrt.runtime.cell_size.places import PLANAR_PROBE, PROBE, shown
from cellrt.runtime.grid.mended_image import mended
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.grid.scale import CellScale
from cellrt.runtime.grid.texture import busiest_box
from cellrt.runtime.model.file import open_model

CARD = open_model("nuclei2d").card
SAME_SCALE = CellScale(CARD.diameter_voxels, (1.0, 1.0, 1.0), "", "")


def discs(edge, diameter, grey):
    """A field of round cells, in rows, at twice their diameter."""
    y, x = np.mod(np.indices((edge, edge)), 2 * diameter) - diameter
    inside = (y**2 + x**2 <= (diameter / 2) ** 2).astype(np.float32)
    return grey * ndimage.gaussian_filter(inside, 1.5)


def test_one_bright_field_of_large_cells_does_not_decide_for_a_mosaic():
    fields = [discs(520, 24, 300) for _ in range(3)]
    image = np.block([[discs(520, 48, 900), fields[0]], [fields[1], fields[2]]])
    image = (100 + image + np.random.default_rng(0).normal(0, 6, image.shape)).astype(np.uint16)
    found = cellrt.Segmenter("nuclei2d").prepare(image).scale
    assert found.diameter_pixels == pytest.approx(24, rel=0.2)


def test_each_quarter_of_a_large_image_has_its_part():
    rng = np.random.default_rng(1)
    image = ndimage.gaussian_filter(rng.random((1, 1040, 1200)), (0, 6, 6))
    fine = ndimage.gaussian_filter(rng.random((1, 520, 600)), (0, 1.5, 1.5))
    image[:, :520, 600:] = fine * image.std() / fine.std()
    seen = shown(mended(image.astype(np.float32)), SAME_SCALE, CARD)
    assert seen.shape == PLANAR_PROBE
    read, half = seen.read((0, 0, 0), seen.shape)[0], PLANAR_PROBE[1] // 2
    alike = []
    for y, x in ((0, 0), (0, half), (half, 0), (half, half)):
        part = read[y : y + half, x : x + half]
        alike.append(np.corrcoef(part[:, 4:].ravel(), part[:, :-4].ravel())[0, 1])
    assert alike[1] < 0.3
    assert min(alike[0], *alike[2:]) > 0.6


@pytest.mark.parametrize("shape", [(1, 700, 999), (1, 300, 3000), (1, 90, 80)])
def test_of_a_smaller_image_the_busiest_piece_is_shown(shape):
    rng = np.random.default_rng(3)
    image = mended(ndimage.gaussian_filter(rng.random(shape), (0, 4, 4)).astype(np.float32))
    part = tuple(min(n, p) for n, p in zip(shape, PLANAR_PROBE, strict=True))
    busiest = prepare_image(image.crop(busiest_box(image, part)), part, CARD.normalisation)
    seen = shown(image, SAME_SCALE, CARD)
    assert seen.shape == part
    np.testing.assert_array_equal(seen.read((0, 0, 0), part), busiest.read((0, 0, 0), part))


def test_a_stack_is_looked_at_where_it_is_busiest():
    card = open_model("nuclei").card
    stack = np.random.default_rng(2).random((40, 1200, 1200), np.float32)
    seen = shown(mended(stack), CellScale(card.diameter_voxels, (1.0,) * 3, "", ""), card)
    assert all(n >= p for n, p in zip(seen.shape, PROBE, strict=True))
    assert seen.shape[1] < 100
