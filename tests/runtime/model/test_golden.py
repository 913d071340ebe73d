"""How far an engine is from the output that a card stores, by the scale of each channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellrt.runtime.model.card_parts import Golden, Output, predicts_shapes
from cellrt.runtime.model.file import open_model
from cellrt.runtime.model.golden import golden_difference

SHAPES = ("distance", "c_0_0", "c_1_-1")
FLOWS = ("foreground", "flow_z", "flow_y", "flow_x")


def card(channels, means):
    bundled = open_model("nuclei").card
    golden = Golden((8, 8, 8), "a", "b", tuple(means))
    return replace(bundled, outputs=(Output("fields", tuple(channels)),), golden=golden)


def infer(means):
    fields = np.asarray(means, np.float64)[None, :, None, None, None]
    return lambda image: np.broadcast_to(fields, (1, len(means), *image.shape[2:]))


def test_shapes_are_radii_or_coefficients():
    assert predicts_shapes(SHAPES)
    assert predicts_shapes(("probability", "radius_0", "radius_1"))
    assert not predicts_shapes(FLOWS)
    assert not predicts_shapes(("background", "membrane", "cell"))


def test_flows_are_compared_as_they_are():
    stored = card(FLOWS, [0.25, 0.5, 40.0, 0.0])
    assert golden_difference(stored, infer([0.25, 0.5, 40.004, 0.0])) == pytest.approx(0.004)


def test_all_numbers_of_a_shape_have_its_scale():
    """A coefficient near 0 is as far off in voxels as the one that says how large the cell is."""
    stored = card(SHAPES, [0.25, 40.0, 0.5])
    assert golden_difference(stored, infer([0.25, 40.004, 0.5])) == pytest.approx(1e-4)
    assert golden_difference(stored, infer([0.25, 40.0, 0.504])) == pytest.approx(1e-4)
    assert golden_difference(stored, infer([0.25, 20.0, 0.5])) == pytest.approx(0.5)


def test_the_map_beside_shapes_keeps_its_own_scale():
    stored = card(SHAPES, [0.25, 40.0, 0.5])
    assert golden_difference(stored, infer([0.254, 40.0, 0.5])) == pytest.approx(0.004)


def test_small_shapes_are_not_magnified():
    stored = card(SHAPES, [0.25, 0.01, 0.0])
    assert golden_difference(stored, infer([0.25, 0.014, 0.0])) == pytest.approx(0.004)


def test_a_number_that_is_none_is_a_difference():
    stored = card(SHAPES, [0.25, 40.0, 0.5])
    assert not golden_difference(stored, infer([0.25, np.nan, 0.5])) <= 1.0
