"""Boxes of an image as the network sees it, however the image is stored and whoever reads it."""

from __future__ import annotations

import numpy as np
import pytest

from cellrt.runtime.grid.model_image import ModelImage, prepare_image
from cellrt.runtime.image.file_sources import LazySource
from cellrt.runtime.model.card_parts import LocalBrightness, Normalisation

RULES = [LocalBrightness(diameter_voxels=6.0), Normalisation()]


class Stored:
    """An array that counts how often it is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        self.reads += 1
        return self.array[index]


def stack():
    image = np.random.default_rng(0).normal(200, 20, (24, 40, 44)).astype(np.uint16)
    image[5, 9, 9] = image[11, 0, 43] = 4000  # hot pixels, one in a corner
    image[14] = 7  # a lost slice
    return image


@pytest.mark.parametrize("rule", RULES)
def test_a_tile_of_stored_chunks_unpacks_each_once(rule):
    image = stack()
    stored = Stored(image)
    there = prepare_image(LazySource(stored, "ZYX", chunks=(8, 16, 16)), image.shape, rule)
    here = prepare_image(image, image.shape, rule)
    for start, stop in (((0, 0, 0), (16, 16, 16)), ((8, 24, 30), (24, 40, 54))):
        before = stored.reads
        np.testing.assert_array_equal(there.read(start, stop), here.read(start, stop))
        # And the two slices that stand in for a lost one, where they lie outside.
        assert stored.reads - before <= 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(24, 40, 44), (20, 30, 30)])
def test_threads_read_what_one_reads_into_any_memory(rule, shape, monkeypatch):
    image = prepare_image(stack(), shape, rule)
    start, stop = (4, 8, 16), tuple(n + 6 for n in shape)
    alone = image.read(start, stop)
    monkeypatch.setattr("cellrt.runtime.grid.model_image.in_threads", many_threads)
    into = np.full((2, *alone.shape), np.nan, np.float32)[1]
    assert image.read(start, stop, into) is into
    np.testing.assert_array_equal(into, alone)
    assert isinstance(image, ModelImage)


def many_threads(count, work, *, voxels):
    from cellrt.threads import in_threads

    return in_threads(count, work, voxels=voxels, smallest=1)
