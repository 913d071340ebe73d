"""Scale: who is believed, and what grid follows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellrt.errors import UsageError
from cellrt.runtime.grid.scale import CellScale, known_scale
from cellrt.runtime.image.volume import volume_from_array
from cellrt.runtime.job import Options
from cellrt.runtime.model.card import ModelCard, Output

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


def test_a_diameter_beyond_the_image_is_refused():
    volume = volume_from_array(STACK)
    with pytest.raises(UsageError, match="longest side"):
        known_scale(volume, CARD, diameter=1e9)
