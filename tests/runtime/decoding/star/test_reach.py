"""What shapes reach, against what is drawn of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.star.harmonics import radius_ranges
from cellrt.runtime.decoding.star.rasterise import rasterise_harmonics, rasterise_rays
from cellrt.runtime.decoding.star.reach import reach_of_harmonics, reach_of_rays

SHAPE, ONE = (19, 40, 44), (1.0, 1.0, 1.0)


@pytest.fixture
def some():
    """Centres, of which some are beyond the faces, and a map with holes."""
    rng = np.random.default_rng(3)
    centres = rng.uniform(-3, np.add(SHAPE, 3), (30, 3))
    heights = rng.integers(0, 256, SHAPE).astype(np.uint8)
    heights[rng.random(SHAPE) < 0.3] = 0
    return rng, centres, heights


@pytest.mark.parametrize("limit", [1.0, 1.5])
def test_the_map_stays_where_harmonics_are_drawn(some, limit):
    rng, centres, heights = some
    coefficients = rng.normal(0, 0.7, (len(centres), 36))
    coefficients[:, 0] = rng.uniform(0, 6, len(centres)) * math.sqrt(4 * math.pi)
    extent = radius_ranges(coefficients)
    drawn = rasterise_harmonics(SHAPE, ONE, centres, coefficients, extent[:, 1], limit=limit)
    found = reach_of_harmonics(heights, centres, coefficients, extent, limit)
    assert 0.02 < (drawn > 0).mean() < 0.9
    np.testing.assert_array_equal(found, np.where(drawn > 0, heights, 0))


@pytest.mark.parametrize("limit", [1.0, 1.5])
def test_the_map_stays_where_polyhedra_are_drawn(some, limit):
    rng, centres, heights = some
    rays = directions(36)
    radii = rng.uniform(0.5, 6, (len(centres), 1)) * rng.uniform(0.6, 1, (len(centres), 36))
    radii[0] = 1e-3
    drawn = rasterise_rays(SHAPE, ONE, centres, radii, rays, limit=limit)
    found = reach_of_rays(heights, centres, radii, rays, limit)
    assert 0.02 < (drawn > 0).mean() < 0.9
    np.testing.assert_array_equal(found, np.where(drawn > 0, heights, 0))


@pytest.mark.parametrize("count", [36, 96])
def test_voxels_on_edges_and_in_centres_of_polyhedra_are_reached(count):
    # Rays along the axes and centres in the middle of voxels: many lie on a face or between two.
    rng = np.random.default_rng(count)
    rays = np.concatenate([np.eye(3), -np.eye(3), directions(count)])
    centres = np.floor(rng.uniform(0, SHAPE, (12, 3)))
    radii = np.full((12, len(rays)), 4.0)
    radii[:6] = rng.integers(1, 9, (6, len(rays)))
    heights = np.full(SHAPE, 7, np.uint8)
    drawn = rasterise_rays(SHAPE, ONE, centres, radii, rays, limit=1.5)
    found = reach_of_rays(heights, centres, radii, rays, 1.5)
    np.testing.assert_array_equal(found, np.where(drawn > 0, heights, 0))


def test_without_shapes_nothing_is_reached():
    heights = np.full((3, 4, 5), 7, np.uint8)
    none = np.zeros((0, 3))
    assert not reach_of_rays(heights, none, np.zeros((0, 36)), directions(36), 1.5).any()
    extent = np.zeros((0, 2))
    assert not reach_of_harmonics(heights, none, np.zeros((0, 4)), extent, 1.5).any()
