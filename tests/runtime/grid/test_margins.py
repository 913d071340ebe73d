"""Fill around an image changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cellrt
from cellrt.runtime.grid.margins import without_margins
from cellrt.runtime.grid.mended_image import as_it_is, mended
from cellrt.simulation import simulate_membranes, simulate_nuclei

OFFSET = 400
WIDTHS = ((7, 4), (20, 31), (26, 9))


def padded(image, widths=WIDTHS, value=0):
    return np.pad(image + np.uint16(OFFSET), widths[-image.ndim :], constant_values=value)


def inside(widths=WIDTHS):
    return tuple(slice(a, -b or None) for a, b in widths)


@pytest.mark.parametrize(
    ("simulated", "model"),
    [
        (simulate_nuclei, "nuclei"),
        (simulate_nuclei, "nuclei-stardist"),
        (simulate_membranes, "membranes"),
        (simulate_membranes, "membranes-3dcellseg"),
    ],
)
def test_a_padded_stack_has_the_cells_of_the_stack(simulated, model):
    image = simulated((32, 72, 80), seed=2).image
    cells = cellrt.Segmenter(model)
    known = {"voxel_size": (0.5, 0.5, 0.5)}
    alone, around = cells(image + np.uint16(OFFSET), **known), cells(padded(image), **known)
    assert len(alone.table) > 3
    expected = np.zeros_like(around.labels)
    expected[inside()] = alone.labels
    # Pixels that tell what is hot are drawn from other places.
    assert np.mean(around.labels != expected) < 1e-4
    for column in ("confidence", "touches_border"):
        np.testing.assert_allclose(around.table[column], alone.table[column], atol=0.02)
    box = around.record["scale"]["image_box_zyx"]
    assert box == [[a, a + n] for (a, _), n in zip(WIDTHS, image.shape, strict=True)]
    assert alone.record["scale"]["image_box_zyx"] == [[0, n] for n in image.shape]


@pytest.mark.parametrize("model", ["nuclei2d", "cells2d-harmonic"])
@pytest.mark.parametrize("slices", [False, True])
def test_padded_single_images_have_the_cells_of_the_images(model, slices):
    stack = simulate_nuclei((40, 96, 120), seed=5).image
    image = stack[14:18] if slices else stack[16]
    cells = cellrt.Segmenter(model, slices=slices)
    alone = cells(image + np.uint16(OFFSET), diameter=16)
    around = cells(padded(image), diameter=16)
    assert len(alone.table) > 3
    expected = np.zeros_like(around.labels)
    expected[inside()[-image.ndim :]] = alone.labels
    # Pixels that tell what is hot are drawn from other places.
    assert np.mean(around.labels != expected) < 1e-4


@settings(max_examples=30)
@given(
    st.tuples(*3 * [st.tuples(st.integers(0, 9), st.integers(0, 9))]),
    st.sampled_from([np.uint8, np.uint16, np.float32, ">u2"]),
    st.sampled_from([0, 50_000_000.0]),
)
def test_the_box_is_the_image(widths, dtype, base):
    rng = np.random.default_rng(0)
    image = rng.poisson(40, (20, 30, 40)) + 100
    fill = 0
    if base:
        dtype, fill = np.float64, base
        image = image + base
    filled = np.pad(image.astype(dtype), widths, constant_values=fill)
    whole = mended(filled)
    found = without_margins(whole)
    if whole.defects.fill is None:  # too little of it
        assert found is whole
        return
    # A margin thinner than the overview's steps may stay, where nothing else is around the image.
    if found is whole:
        assert max(max(each) for each in widths) < whole.defects.overview_step
        return
    assert found.start == tuple(a for a, _ in widths)
    assert found.shape == image.shape


@pytest.mark.parametrize(("kind", "offset"), [("u4", 4e9), ("i4", 1e9), ("f8", 1e12)])
def test_zeros_around_an_image_with_a_large_offset_cost_it_no_digits(kind, offset):
    image = simulate_nuclei((20, 60, 60), seed=1).image
    moved = (image.astype(np.float64) + offset).astype(kind)
    alone, around = mended(moved), without_margins(mended(np.pad(moved, WIDTHS)))
    assert around.shape == alone.shape
    values, filled = around.read((0, 0, 0), around.shape)
    assert filled is None
    expected, _ = alone.read((0, 0, 0), alone.shape)
    # What is hot is told from other pixels.
    assert np.mean(values + around.defects.base != expected + alone.defects.base) < 1e-3


def test_hot_pixels_in_the_fill_are_no_image():
    filled = padded(simulate_nuclei((20, 60, 60), seed=1).image)
    rng = np.random.default_rng(1)
    for place in rng.integers(0, filled.shape, (40, 3)):
        filled[tuple(place)] = 9000
    assert without_margins(mended(filled)).start == tuple(a for a, _ in WIDTHS)


def test_a_single_slice_with_an_image_stays_in_its_stack():
    image = simulate_nuclei((20, 60, 60), seed=1).image[10] + np.uint16(OFFSET)
    filled = np.zeros((6, 80, 80), np.uint16)
    filled[3, 10:70, 12:72] = image
    box = without_margins(mended(filled))
    assert box.shape == (6, 60, 60)
    assert box.start == (0, 10, 12)


def test_what_is_taken_as_it_is_has_no_margins():
    whole = as_it_is(padded(simulate_nuclei((20, 60, 60), seed=1).image))
    assert without_margins(whole) is whole
