"""A voxel size that looks like a slip is obeyed and named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile

import cellrt
from cellrt.errors import UsageError
from cellrt.runtime.image.reading import read_volume
from cellrt.runtime.image.stored import StatedSize
from cellrt.runtime.image.voxel_size import doubts_about

FILE = StatedSize((0.5, 0.1, 0.1), "test")


@pytest.mark.parametrize(
    ("given", "stated", "word"),
    [
        ((0.1, 0.1, 0.5), FILE, "the order is z y x"),
        ((0.1, 0.1, 0.5), StatedSize(reason="none"), "the order is z y x"),
        ((50.0, 10.0, 10.0), FILE, "100 times what the file says"),
        ((0.005, 0.001, 0.001), FILE, "0.01 times"),
        ((0.1, 0.5, 0.1), FILE, "the order is z y x"),
        (
            (2.0, 0.02, 0.02),
            FILE,
            "file says 0.5 0.1 0.1: it is 4 times as much along z, 0.2 times",
        ),
        ((0.005, 20.0, 20.0), FILE, "200 times as much along y"),
        ((0.1, 0.1, 0.1), FILE, "0.2 times as much along z"),
        ((5.0, 1.0, 1.0), FILE, "10 times as much along z"),
        ((2.0, 0.05, 0.05), StatedSize((None, 0.5, 0.5), "test"), "file says ? 0.5 0.5"),
        ((8.0, 50.0, 50.0), StatedSize((None, 0.5, 0.5), "test"), "100 times what the file says"),
    ],
)
def test_slips_of_order_and_unit_are_named(given, stated, word):
    (text,) = doubts_about(given, stated)
    assert word in text


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        ((0.5, 0.1, 0.1), FILE),
        ((1.0, 0.2, 0.2), FILE),
        ((0.4, 0.13, 0.13), FILE),
        ((0.3, 0.2, 0.2), FILE),
        # What nobody can have recorded, as a printing resolution, is no word of the file's.
        ((2.0, 0.5, 0.5), StatedSize((None, 352.8, 352.8), "test")),
        ((0.02, 0.02, 0.02), StatedSize((1.0, 1.0, 1.0), "a placeholder")),
        ((2.0, 0.5, 0.5), StatedSize((None, 0.5, 0.5), "test")),
        ((2.0, 0.5, 0.5), StatedSize((0.0, 0.5, 0.5), "test")),
        ((2.0, 0.5, 0.5), StatedSize((-2.0, 0.5, 0.5), "test")),
    ],
)
def test_a_size_that_only_corrects_the_file_is_not_doubted(given, stated):
    assert doubts_about(given, stated) == ()


def test_the_z_size_of_one_slice_is_not_doubted():
    assert doubts_about((2.0, 0.1, 0.1), StatedSize((0.1, 0.1, 0.1), "test"), slices=1) == ()
    assert doubts_about((2.0, 1.0, 1.0), StatedSize((9.0, 0.1, 0.1), "test"), slices=1)


def test_an_anisotropy_far_from_the_voxel_size_is_named():
    image = np.zeros((8, 32, 32), np.uint8)
    with pytest.warns(cellrt.CellrtWarning, match="anisotropy 0.2 was given.* it is 5"):
        cellrt.segment(image, voxel_size=(2.5, 0.5, 0.5), anisotropy=0.2)
    fine = cellrt.segment(image, voxel_size=(2.5, 0.5, 0.5), anisotropy=4)
    assert not any("anisotropy" in text for text in fine.warnings)


@pytest.mark.parametrize("size", [(math.nan, 1, 1), (0, 1, 1), (1, 1), "abc", (1, 1, 1e9)])
def test_numbers_that_are_no_voxel_size_are_wrong_usage(tmp_path, size):
    with pytest.raises(UsageError, match="voxel_size is"):
        cellrt.segment(np.zeros((8, 32, 32), np.uint8), voxel_size=size)


def test_the_doubt_reaches_the_volume(tmp_path):
    path = tmp_path / "stack.ome.tif"
    metadata = {"axes": "ZYX"}
    for axis, size in zip("ZYX", FILE.um, strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, np.ones((3, 8, 8), np.uint8), metadata=metadata)
    assert read_volume(path).warnings == ()
    volume = read_volume(path, voxel_size_um=(0.1, 0.1, 0.5))
    assert "not x y z" in volume.warnings[0]
    assert volume.voxel_size_um == (0.1, 0.1, 0.5)


def test_an_unknown_distance_of_slices_is_a_warning():
    image = np.zeros((8, 32, 32), np.uint8)
    with pytest.warns(cellrt.CellrtWarning, match="distance between slices is unknown"):
        cellrt.segment(image, diameter=9.0)
    known = cellrt.segment(image, diameter=9.0, anisotropy=1.0)
    assert not any("distance between" in text for text in known.warnings)
    assert not any("distance between" in text for text in cellrt.segment(image[0]).warnings)
