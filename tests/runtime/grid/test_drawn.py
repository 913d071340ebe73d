"""Masks and label images are told from recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import cellrt
from cellrt.runtime.grid.drawn import drawing
from cellrt.simulation import simulate_nuclei

DATA = Path(__file__).parents[3].parent / "shared" / "data"
NUCLEI = simulate_nuclei((24, 96, 96), diameter_voxels=16, seed=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_labels_and_masks_are_seen(dtype):
    assert drawing(NUCLEI.labels.astype(dtype)) == "a label image"
    assert drawing((NUCLEI.labels > 0).astype(dtype)) == "a mask"


@pytest.mark.parametrize("divided_by", [1, 20, 60])
def test_a_recording_in_few_grey_values_is_none(divided_by):
    assert drawing(NUCLEI.image // divided_by) is None


def test_a_recording_without_noise_whose_cells_are_saturated_is_none():
    discs = ndimage.gaussian_filter((NUCLEI.labels > 0).astype(float), (0, 1.5, 1.5))
    assert drawing((300 * discs).clip(0, 255).astype(np.uint8)) is None


def test_labels_of_cells_that_fill_the_image_are_seen():
    seeds = np.zeros((1, 200, 200), int)
    seeds[0, 10::20, 10::20] = np.arange(1, 101).reshape(10, 10)
    nearest = ndimage.distance_transform_edt(
        seeds == 0, return_distances=False, return_indices=True
    )
    assert drawing(seeds[tuple(nearest)]) == "a label image"


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (1, 1, 9), (2, 3, 4)])
def test_the_smallest_images_and_constant_ones_are_none(shape):
    assert drawing(np.zeros(shape, np.uint8)) is None
    assert drawing(np.arange(np.prod(shape)).reshape(shape)) is None


@pytest.mark.skipif(not DATA.is_dir(), reason="real images (../shared/data) are absent")
def test_real_images_are_told_apart():
    folder = DATA / "cells2d" / "dsb2018"
    for image in sorted((folder / "images").glob("1*.tif")):
        assert drawing(tifffile.imread(image)[None]) is None
        labels = tifffile.imread(folder / "masks" / image.name)
        assert drawing(labels[None]) in {"a label image", "a mask"}


def test_segmenting_labels_is_a_warning():
    with pytest.warns(cellrt.CellrtWarning, match="looks like a label image"):
        result = cellrt.segment(NUCLEI.labels, diameter=16)
    assert any("looks like a label image" in text for text in result.warnings)


def test_an_image_that_a_threshold_made_is_a_mask():
    plane = NUCLEI.image[12:13].astype(float)
    assert drawing((plane > np.median(plane) + 60).astype(np.uint8) * 255) == "a mask"


def test_a_ragged_threshold_makes_a_mask_of_booleans():
    noisy = NUCLEI.image[12:13] + np.random.default_rng(0).normal(
        0, 40, (1, *NUCLEI.image.shape[1:])
    )
    ragged = noisy > np.percentile(noisy, 93)
    assert drawing(ragged.view(np.uint8)) == "a mask"


@pytest.mark.parametrize("photons", [0.02, 0.2])
def test_single_photons_are_no_mask(photons):
    counts = np.random.default_rng(0).poisson(photons, (1, 200, 200))
    assert drawing(counts.clip(0, 1).astype(np.uint8)) is None
