"""Random shapes and their rasterisation, against geometry."""

from __future__ import annotations

import numpy as np
import pytest

from cellrt.simulation.structure.shapes import (
    POLAR_NODES,
    direction_grid,
    random_radius_tables,
    random_rotation,
    rasterise,
)


def sphere(radius, n=1):
    return np.full((n, *direction_grid().shape[:2]), radius, np.float32)


def test_rotations_are_rotations():
    for seed in range(10):
        rotation = random_rotation(np.random.default_rng(seed))
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_sphere_is_rasterised_exactly():
    centre = np.array([[15.3, 14.6, 16.0]])
    owner, depth, rival = rasterise((32, 32, 32), centre, sphere(9.0))
    grid = np.stack(np.indices((32, 32, 32)), axis=-1)
    distance = np.linalg.norm(grid - centre[0], axis=-1)
    assert np.array_equal(depth > 0, distance < 9.0)
    near = distance < 10.5
    assert depth[near] == pytest.approx(9.0 - distance[near], abs=1e-4)
    assert set(np.unique(owner[depth > 0])) == {1}
    assert (rival == -100).all()


def test_two_spheres_share_their_overlap_by_the_middle_plane():
    centres = np.array([[16.0, 16.0, 12.0], [16.0, 16.0, 20.0]])
    owner, depth, rival = rasterise((33, 33, 33), centres, sphere(7.0, 2))
    inside = np.where(depth > 0, owner, 0)
    assert set(np.unique(inside[..., :16])) == {0, 1}
    assert set(np.unique(inside[..., 17:])) == {0, 2}
    assert rival[16, 16, 14] == pytest.approx(7.0 - 6.0, abs=1e-4)


def test_centres_outside_the_volume_are_cut():
    owner, depth, _ = rasterise((8, 8, 8), np.array([[-3.0, 4.0, 4.0]]), sphere(5.0))
    assert (depth[:2, 4, 4] > 0).all()
    assert (depth[3:] < 0).all()
    assert owner.max() == 1


@pytest.mark.parametrize("roughness", [0.0, 0.05, 0.15])
def test_volume_is_that_of_the_asked_diameter(roughness):
    rng = np.random.default_rng(5)
    ratios = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 2.0, 1.0]])
    tables = random_radius_tables(np.full(3, 20.0), ratios, np.full(3, roughness), rng)
    for table in tables:
        _, depth, _ = rasterise((64, 64, 64), np.full((1, 3), 32.0), table[None])
        diameter = (6 / np.pi * np.count_nonzero(depth > 0)) ** (1 / 3)
        assert diameter == pytest.approx(20.0, rel=0.03)


def test_elongated_shapes_have_the_asked_axes():
    rng = np.random.default_rng(6)
    (table,) = random_radius_tables(np.array([24.0]), np.array([[3.0, 1.0, 1.0]]), np.zeros(1), rng)
    assert table.max() / table.min() == pytest.approx(3.0, rel=0.02)


def test_short_axis_follows_the_normal():
    rng = np.random.default_rng(7)
    normals = np.array([[1.0, 0.0, 0.0], [np.nan] * 3])
    ratios = np.array([[1.0, 1.0, 0.4], [1.0, 1.0, 0.4]])
    tables = random_radius_tables(np.full(2, 20.0), ratios, np.zeros(2), rng, normals=normals)
    assert tables[0].argmin() < tables.shape[2]  # a pole of the z axis
    assert tables[0][POLAR_NODES // 2].std() == pytest.approx(0.0, abs=1e-3)
    assert tables[1][POLAR_NODES // 2].std() > 0.1
