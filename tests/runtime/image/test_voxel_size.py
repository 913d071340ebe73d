"""A voxel size that looks like a slip is obeyed and named."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import cellrt
from cellrt.runtime.image.formats import read_volume
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
        ((0.1, 0.1, 0.1), FILE),
        ((0.02, 0.02, 0.02), StatedSize((1.0, 1.0, 1.0), "a placeholder")),
        ((2.0, 0.5, 0.5), StatedSize((None, 0.5, 0.5), "test")),
        ((2.0, 0.5, 0.5), StatedSize((0.0, 0.5, 0.5), "test")),
        ((2.0, 0.5, 0.5), StatedSize((-2.0, 0.5, 0.5), "test")),
    ],
)
def test_a_size_that_only_corrects_the_file_is_not_doubted(given, stated):
    assert doubts_about(given, stated) == ()


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
