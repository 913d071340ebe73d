"""Directions are spread evenly: those that ship, and those that are made anew."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from cellrt.errors import UsageError
from cellrt.runtime.decoding.star.directions import (
    FEWER,
    RAYS,
    directions,
    fibonacci_lattice,
    repelled,
    shipped_directions,
)


def nearest_angles(points):
    distances, _ = cKDTree(points).query(points, 2)
    return 2 * np.arcsin(distances[:, 1] / 2)


def test_shipped_directions_are_spread_evenly():
    points = shipped_directions()
    assert points.shape == (5000, 3)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.ones(5000), abs=1e-12)
    angles = nearest_angles(points)
    assert angles.max() / angles.min() < 1.15
    assert points.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    # No direction is worth more than another: second moments are those of the sphere.
    assert points.T @ points / 5000 == pytest.approx(np.eye(3) / 3, abs=2e-5)


@pytest.mark.parametrize("count", [*RAYS, FEWER])
def test_few_directions_are_spread_evenly(count):
    points = directions(count)
    assert points.shape == (count, 3)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.ones(count), abs=1e-12)
    angles = nearest_angles(points)
    assert angles.max() / angles.min() < 1.15
    lattice = nearest_angles(fibonacci_lattice(count))
    assert angles.max() / angles.min() < lattice.max() / lattice.min()
    assert points.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)
    assert points.T @ points / count == pytest.approx(np.eye(3) / 3, abs=2e-3)


@pytest.mark.parametrize("count", RAYS)
def test_shipped_directions_are_those_at_rest(count):
    assert repelled(directions(count)) == pytest.approx(directions(count), abs=1e-3)


def test_a_number_without_directions_is_refused():
    with pytest.raises(UsageError, match="no 37 directions; choose one of 36, 64, 96, 500 or 5000"):
        directions(37)


def test_shipped_directions_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        shipped_directions()[0] = 1


@pytest.mark.parametrize("doublings", [0, 3])
@pytest.mark.parametrize(
    ("count", "angle", "faces"), [(4, 109.4712, 4), (6, 90.0, 8), (12, 63.4349, 20)]
)
def test_few_points_come_to_rest_as_regular_solids(count, angle, faces, doublings):
    points = repelled(fibonacci_lattice(count), doublings)
    assert np.degrees(nearest_angles(points)) == pytest.approx(np.full(count, angle), abs=0.01)
    assert len(ConvexHull(points).simplices) == faces


def test_charges_at_rest_have_less_energy_than_the_lattice():
    def energy(points):
        distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
        return (1 / distances[np.triu_indices(len(points), 1)]).sum()

    points = repelled(fibonacci_lattice(100))
    # The least that is known for 100 charges, Thomson's problem.
    assert energy(points) == pytest.approx(4448.350634, rel=2e-4)
    assert energy(points) < energy(fibonacci_lattice(100))
