"""Rod-shaped bacteria in one slice, by three kinds of contrast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellrt.errors import UsageError
from cellrt.simulation import simulate_bacteria
from cellrt.simulation.structure.curves import Rod, height_of

CONTRASTS = ("fluorescence", "phase", "dic")


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_truth_is_whole_rods_that_touch(contrast):
    stack = simulate_bacteria((128, 160), contrast=contrast, seed=1)
    labels = stack.labels
    assert stack.image.shape == labels.shape == (1, 128, 160)
    assert stack.image.dtype == np.uint16
    ids = np.unique(labels)[1:]
    assert (ids == np.arange(1, stack.cell_count + 1)).all()
    assert stack.cell_count > 30
    areas = np.bincount(labels.ravel())[1:]
    assert np.sqrt(4 / np.pi * np.median(areas)) == pytest.approx(16, rel=0.25)
    touching = 0
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        one = labels[box] == label
        assert ndimage.label(one)[1] == 1
        beside = labels[0][ndimage.binary_dilation(labels[0] == label)]
        touching += len(np.unique(beside[(beside > 0) & (beside != label)])) > 0
    assert touching > 0.4 * stack.cell_count
    assert (labels > 0).mean() == pytest.approx(0.45, abs=0.05)


def test_contrast_is_what_it_is_called():
    grey = {}
    for contrast in CONTRASTS:
        stack = simulate_bacteria((160, 160), contrast=contrast, filling=0.3, photons=3000, seed=2)
        image, inside = stack.image[0].astype(float), stack.labels[0] > 0
        distance = ndimage.distance_transform_edt(~inside)
        edge, far = (distance > 1) & (distance < 4), distance > 12
        grey[contrast] = [image[part].mean() for part in (inside, edge, far)]
    cell, edge, far = grey["fluorescence"]
    assert cell > 2 * far
    cell, edge, far = grey["phase"]
    assert cell < far < edge  # dark, and the halo is brighter than what lies farther away
    cell, edge, far = grey["dic"]
    assert cell == pytest.approx(far, rel=0.1)  # relief, as much light as shadow


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    one, same, other = (simulate_bacteria((64, 64), seed=seed) for seed in (3, 3, 4))
    assert (one.image == same.image).all()
    assert (one.labels == same.labels).all()
    assert (one.image != other.image).any()


def test_an_empty_image_and_a_full_one_end():
    assert simulate_bacteria((40, 40), filling=0.0).cell_count == 0
    assert 0.5 < (simulate_bacteria((96, 96), filling=1.0).labels > 0).mean() < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"filling": 1.5},
        {"diameter_voxels": 2},
        {"diameter_voxels": 65},
        {"photons": 0},
        {"contrast": "dark"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        simulate_bacteria((64, 64), **wrong)


def test_a_rod_is_as_long_and_wide_as_asked_for():
    rod = Rod((40.0, 50.0), 0.0, length=40, width=10)
    _, height = height_of(rod.line(), rod.width / 2, (80, 100))
    inside = height > 0
    assert inside.any(axis=0).sum() == pytest.approx(40, abs=1.5)
    assert inside.any(axis=1).sum() == pytest.approx(10, abs=1.5)
    assert height.max() == pytest.approx(5, abs=0.1)
    outside, nothing = height_of(rod.line() - 500, 5.0, (80, 100))
    assert nothing.size == 0
    assert outside[0].start <= 80


def test_the_command_writes_one_slice_with_its_truth(tmp_path):
    import tifffile

    from cellrt.cli.main import _run

    words = ["simulate", "bacteria", "--style", "phase", "--shape", "1", "64", "80", "-q"]
    assert _run([*words, "-o", str(tmp_path)], debug=False) == 0
    assert np.squeeze(tifffile.imread(tmp_path / "bacteria_000.tif")).shape == (64, 80)
    assert np.squeeze(tifffile.imread(tmp_path / "bacteria_000.truth.tif")).max() > 3
    words[5] = "9"
    assert _run([*words, "-o", str(tmp_path), "--name", "b"], debug=False) == 2
