"""Scale: who is believed, and what grid follows."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from cellrt.errors import InputError, UsageError
from cellrt.runtime.grid.scale import CellScale, known_scale
from cellrt.runtime.image.stored import Provenance
from cellrt.runtime.image.volume import volume_from_array
from cellrt.runtime.job import Options
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Output

STACK = np.zeros((10, 20, 30), np.uint8)
CARD = ModelCard(
    name="test",
    summary="",
    target="nuclei",
    method="cellpose3d",
    decoder="flows",
    decoder_parameters={},
    diameter_voxels=16.0,
    voxel_size_um=0.5,
    outputs=(Output("fields", ("flow_z", "flow_y", "flow_x", "foreground")),),
)


def test_nothing_known_gives_no_scale_and_says_so():
    scale, spacing, origin = known_scale(volume_from_array(STACK), CARD)
    assert scale is None
    assert spacing == (1, 1, 1)
    assert "unknown" in origin


def test_the_voxel_size_gives_scale_and_anisotropy():
    volume = volume_from_array(STACK, voxel_size_um=(2.0, 0.5, 0.25))
    scale, spacing, _ = known_scale(volume, CARD)
    assert spacing == (8, 2, 1)
    assert scale is not None
    assert not scale.certain
    assert scale.diameter_pixels == pytest.approx(8 / 0.25)
    assert scale.model_shape(volume.shape, CARD) == (40, 20, 15)


def test_the_user_overrides_the_file():
    volume = volume_from_array(STACK, voxel_size_um=(2.0, 0.5, 0.5))
    scale, spacing, _ = known_scale(volume, CARD, diameter=8, anisotropy=3)
    assert spacing == (3, 1, 1)
    assert scale is not None
    assert scale.certain
    assert scale.factors(CARD) == (4.5, 1.5, 1.5)


def test_a_negligible_change_of_scale_is_not_made():
    assert CellScale(15.5, (1, 1, 1), "", "").model_shape((9, 9, 9), CARD) == (9, 9, 9)
    assert CellScale(32, (1, 1, 1), "", "").model_shape((9, 9, 9), CARD) == (4, 4, 4)


def test_small_cells_are_enlarged_no_more_than_needed():
    factors = [CellScale(d, (1, 1, 1), "", "").factors(CARD)[0] for d in (4, 8, 12, 15, 16, 32)]
    assert factors == [3, 1.5, 1, 1, 1, 0.5]


def test_one_slice_ignores_z():
    volume = volume_from_array(np.zeros((20, 30), np.uint8), voxel_size_um=(9.0, 0.5, 0.5))
    _, spacing, _ = known_scale(volume, CARD)
    assert spacing == (1, 1, 1)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e-9])
@pytest.mark.parametrize("name", ["diameter", "anisotropy"])
def test_impossible_numbers_are_refused(name, value):
    with pytest.raises(UsageError, match=f"^{name} is"):
        Options(**{name: value})


def _volume(origin, size):
    """A stack whose voxel size the user gave, or its file."""
    volume = volume_from_array(STACK, voxel_size_um=size)
    source = Provenance(origin, "test")
    return dataclasses.replace(volume, voxel_size_source=source)


@pytest.mark.parametrize(
    ("origin", "size", "options", "error", "words"),
    [
        ("user", (1, 1, 1), {"diameter": 1e9}, UsageError, "1e.09 pixels .given by the user"),
        ("user", (200, 0.001, 0.001), {}, UsageError, "check --voxel-size 200 0.001 0.001"),
        ("user", (100, 0.02, 0.02), {}, UsageError, "400 pixels long along y.* has 20"),
        (
            "file",
            (100, 0.02, 0.02),
            {},
            InputError,
            r"give --voxel-size, if that of the file \(test\) is wrong",
        ),
        # Along one axis only, and with other options on top of it.
        ("file", (1, 0.001, 0.5), {}, InputError, "8e.03 pixels long along y"),
        ("file", (1, 0.001, 0.5), {"diameter": 16}, UsageError, "voxel size, file: test"),
        ("user", (9, 0.02, 0.02), {"anisotropy": 1}, UsageError, "pixels long along y"),
    ],
)
def test_an_image_that_is_scaled_to_nothing_is_refused(origin, size, options, error, words):
    with pytest.raises(error) as refused:
        known_scale(_volume(origin, size), CARD, **options)
    assert re.search(words, refused.value.message), refused.value.message
    assert "\n" not in refused.value.message


def test_tiny_crops_of_usual_cells_are_taken():
    for shape in ((1, 1, 1), (3, 2, 40)):
        scale, *_ = known_scale(volume_from_array(np.zeros(shape)), CARD, diameter=30)
        assert scale is not None


def test_an_image_of_a_part_of_a_cell_is_a_warning_that_says_why():
    scale, *_ = known_scale(_volume("user", (2, 0.2, 0.2)), CARD)
    assert scale is not None
    assert "0.5 of a cell wide" in scale.doubts(STACK.shape, CARD)[0]
    assert "--voxel-size 2 0.2 0.2" in scale.doubts(STACK.shape, CARD)[0]
    scale, *_ = known_scale(_volume("file", (1, 0.5, 0.5)), CARD, anisotropy=0.01)
    assert scale is not None
    (text,) = scale.doubts(STACK.shape, CARD)
    assert "slices together" in text
    assert "anisotropy given" in text
    scale, *_ = known_scale(_volume("file", (20, 20, 20)), CARD)
    assert scale is not None
    assert "hardly any shape" in scale.doubts(STACK.shape, CARD)[0]
    assert CellScale(16, (1, 1, 1), "", "").doubts(STACK.shape, CARD) == ()


@pytest.mark.parametrize(("z", "warned"), [(2.0, False), (2.1, False), (3.0, True), (8.0, True)])
def test_slices_farther_apart_than_in_training_are_a_warning(z, warned):
    volume = volume_from_array(STACK, voxel_size_um=(z, 0.5, 0.5))
    scale, _, _ = known_scale(volume, CARD)
    assert scale is not None
    found = [text for text in scale.doubts(volume.shape, CARD) if "slices thick" in text]
    assert bool(found) == warned
    finer = dataclasses.replace(CARD, coarsest_slices=1.0)
    assert any("at least 16" in text for text in scale.doubts(volume.shape, finer))


def test_one_slice_has_no_distance_to_doubt():
    volume = volume_from_array(STACK[:1], voxel_size_um=(9.0, 0.5, 0.5))
    scale, _, _ = known_scale(volume, CARD)
    assert scale is not None
    assert not any("slices thick" in text for text in scale.doubts(volume.shape, CARD))


@pytest.mark.parametrize(("pixels", "warned"), [(1.5, True), (3.9, True), (4.0, False)])
def test_cells_of_a_few_pixels_are_a_warning_that_names_the_enlargement(pixels, warned):
    origin, remedy = "a typical 12 µm at 8 µm per pixel", "give --diameter"
    scale = CellScale(pixels, (1, 1, 1), origin, "one slice", remedy=remedy)
    found = scale.doubts((1, 200, 300), CARD)
    assert bool(found) == warned
    if warned:
        times = scale.model_shape((1, 200, 300), CARD)[2] / 300
        assert f"enlarged {times:.2g} times" in found[0]
        assert origin in found[0]
        assert "--diameter" in found[0]
