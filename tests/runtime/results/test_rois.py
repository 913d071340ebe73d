"""ROI sets for ImageJ: what an outline encloses is the cell, pixel by pixel."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon2mask

from cellrt.errors import UsageError
from cellrt.runtime.results.masks import masks_of
from cellrt.runtime.results.rois import outlines, require_roifile, write_rois
from cellrt.simulation import simulate_bacteria


def filled(lines, shape):
    """Pixels whose centres lie inside of an odd number of outlines, as ImageJ fills them."""
    inside = np.zeros(shape, bool)
    for line in lines:
        inside ^= polygon2mask(shape, np.asarray(line, float)[:, ::-1] - 0.5)
    return inside


def awkward_labels():
    """A hole, parts, pixels that touch by a corner, one pixel, the border, and noise."""
    labels = np.zeros((40, 50), np.int32)
    labels[2:12, 2:14] = 2
    labels[5:8, 5:9] = 0
    labels[6, 7] = 4
    labels[15:20, 2:10] = 7
    labels[15:20, 14:20] = 7
    labels[20:23, 20:25] = 7
    labels[30:, 40:] = 300
    labels[0, 49] = 9
    noise = np.random.default_rng(0).random((16, 16)) > 0.5
    labels[2:18, 30:46][noise] = 11
    labels[25:35, 5:30] = np.kron(np.eye(5, dtype=np.int32), np.full((2, 5), 12))
    return labels


def test_outlines_run_around_pixels():
    one = np.ones((1, 1), bool)
    assert sorted(map(tuple, outlines(one)[0])) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    shape = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    lines = outlines(shape)
    assert sorted(len(line) for line in lines) == [4, 4]
    assert np.array_equal(filled(lines, (3, 3)), shape)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_enclose_any_mask_exactly(seed):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.random((30, 33)), seed / 2) > 0.5
    for line in (lines := outlines(mask)):
        steps = np.abs(np.roll(line, -1, axis=0) - line)
        assert (steps > 0).sum(axis=1).max() == 1  # along x or along y
    assert np.array_equal(filled(lines, mask.shape), mask)


@pytest.mark.parametrize("kind", ["awkward", "bacteria"])
def test_a_set_gives_every_label_back(tmp_path, kind):
    roifile = pytest.importorskip("roifile")
    labels = awkward_labels() if kind == "awkward" else simulate_bacteria((96, 96)).labels[0]
    write_rois(tmp_path / "set.zip", [masks_of(labels)])
    rois = roifile.roiread(tmp_path / "set.zip")
    assert [int(roi.name) for roi in rois] == np.unique(labels)[1:].tolist()
    for roi in rois:
        found = roi.coordinates(multi=True)
        lines = found if isinstance(found, list) else [found]
        cell = labels == int(roi.name)
        assert np.array_equal(filled(lines, labels.shape), cell)
        ys, xs = np.nonzero(cell)
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert (roi.left, roi.top, roi.right, roi.bottom) == box
        holes = ndimage.label(~np.pad(cell, 1))[1] - 1
        single = ndimage.label(cell, np.ones((3, 3)))[1] == 1 and holes == 0
        assert (roi.roitype == roifile.ROI_TYPE.TRACED) == single
        assert roi.composite != single


def test_rois_of_a_stack_say_their_slice(tmp_path):
    roifile = pytest.importorskip("roifile")
    labels = np.zeros((3, 10, 10), np.int32)
    labels[:2, 2:5, 2:5] = 1
    labels[2, 5:8, 5:9] = 2
    write_rois(tmp_path / "set.zip", [masks_of(plane) for plane in labels])
    rois = roifile.roiread(tmp_path / "set.zip")
    assert [(roi.name, roi.position) for roi in rois] == [("1-z1", 1), ("1-z2", 2), ("2-z3", 3)]
    assert all(len(roi.coordinates()) == 4 for roi in rois)


def test_a_package_that_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(UsageError, match=r"pip install 'cellrt\[rois\]'"):
        require_roifile()
