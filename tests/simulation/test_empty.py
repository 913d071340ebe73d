"""Stacks without cells: reproducible, varied, and never without noise or with a label."""

from __future__ import annotations

import numpy as np
import pytest

from cellrt.errors import UsageError
from cellrt.simulation import simulate_empty
from cellrt.simulation.styles import simulate_style


@pytest.mark.parametrize("kind", ["nuclei", "membranes"])
def test_there_is_no_cell_but_an_image(kind):
    stack = simulate_style(kind, "empty", shape=(12, 40, 48), seed=3)
    assert stack.image.shape == stack.labels.shape == (12, 40, 48)
    assert stack.kind == kind
    assert stack.cell_count == 0
    assert stack.image.std() > 0
    assert stack.parameters["style"] == "empty"


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    first, again, other = (simulate_empty((8, 32, 32), seed=s).image for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_anisotropic_stacks_have_the_shape_asked_for():
    stack = simulate_empty((7, 32, 32), voxel_size_um=(2.0, 0.5, 0.5), seed=1)
    assert stack.image.shape == (7, 32, 32)
    assert stack.voxel_size_um == (2.0, 0.5, 0.5)


def test_a_diameter_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError):
        simulate_empty((8, 32, 32), diameter_voxels=0)
