"""Cells end where the image does."""

from __future__ import annotations

import numpy as np
import pytest

import cellrt
from cellrt.runtime.decoding.base import Decoded, Evidence, Place
from cellrt.runtime.decoding.outside import without_fill
from cellrt.runtime.grid.mended_image import as_it_is, mended
from cellrt.simulation.styles import simulate_style

CPU = Place("CPU", "")


@pytest.fixture
def padded():
    """An image with a frame of zeros, 4 voxels wide."""
    inside = np.random.default_rng(3).normal(500, 40, (12, 32, 32)).astype(np.uint16)
    return mended(np.pad(inside, 4))


def test_voxels_of_the_frame_go_and_cells_that_lie_mostly_there(padded):
    assert padded.defects.fill == 0
    labels = np.zeros(padded.shape, np.int32)
    labels[6:10, 6:10, 6:10] = 1  # inside
    labels[6:10, 0:5, 20:24] = 2  # a fifth inside
    labels[6:10, 20:24, 2:12] = 3  # four fifths inside
    labels[0:3, 0:3, 0:3] = 4  # outside
    evidence = Evidence(
        {"probability": np.array([0.0, 0.1, 0.2, 0.3, 0.4])},
        {"missed": 0.5},
        {"loss": np.array([0.0, 1.0, 2.0, 3.0, 4.0])},
    )
    expected = np.zeros_like(labels)
    expected[6:10, 6:10, 6:10] = 1
    expected[6:10, 20:24, 4:12] = 2
    found = without_fill(Decoded(labels, CPU, evidence), padded)
    assert np.array_equal(found.labels, expected)
    assert found.evidence.cells["probability"].tolist() == [0.0, 0.1, 0.3]
    assert found.evidence.areas["loss"].tolist() == [0.0, 1.0, 3.0]
    assert found.evidence.volume == {"missed": 0.5}


def test_without_fill_nothing_is_changed(padded):
    image = np.asarray(padded.source)
    labels = np.ones(image.shape, np.int32)
    decoded = Decoded(labels, CPU)
    assert without_fill(decoded, as_it_is(image)) is decoded
    assert labels.all()


def test_without_cells_there_is_nothing_to_do(padded):
    decoded = Decoded(np.zeros(padded.shape, np.int32), CPU)
    assert not without_fill(decoded, padded).labels.any()


def test_cells_with_dark_insides_do_not_go_on_into_the_frame():
    tissue = simulate_style("membranes", "typical", seed=5, shape=(40, 72, 72))
    image = np.pad(tissue.image.astype(np.uint16) + 1000, 12)
    known = {"diameter": 24.0, "anisotropy": 1.0}
    alone = cellrt.segment(image[12:-12, 12:-12, 12:-12], model="membranes", **known)
    framed = cellrt.segment(image, model="membranes", **known)
    inside = framed.labels[12:-12, 12:-12, 12:-12]
    assert np.count_nonzero(framed.labels) == np.count_nonzero(inside)
    assert framed.table["id"].tolist() == list(range(1, framed.labels.max() + 1))
    scores = cellrt.evaluate(inside, alone.labels)
    assert scores.at(0.5).average_precision > 0.8
