"""Placement of nuclei: distances, density, regions, errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from cellrt.errors import UsageError
from cellrt.simulation.structure.packing import (
    ARRANGEMENTS,
    keep_separate,
    place_nuclei,
    push_apart,
)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_nuclei_are_near_the_volume_and_apart(arrangement):
    rng = np.random.default_rng(3)
    shape = (50, 60, 70)
    centres, diameters, normals = place_nuclei(shape, 12.0, 0.1, 0.3, 0.9, arrangement, rng)
    assert len(centres) == len(diameters) == len(normals) > 0
    assert np.isfinite(normals).all()
    assert (np.linalg.norm(normals, axis=1) > 0).all()
    assert (centres > -12).all()
    assert (centres < np.array(shape) + 12).all()
    distance = squareform(pdist(centres))
    least = 0.88 * 0.9 * (diameters[:, None] + diameters[None]) / 2
    np.fill_diagonal(distance, np.inf)
    assert (distance >= least - 1e-9).all()


def test_dense_packing_reaches_the_asked_filling():
    rng = np.random.default_rng(4)
    _, diameters, _ = place_nuclei((80, 80, 80), 12.0, 0.1, 0.4, 0.85, "dense", rng)
    box = (80 + 2 * 0.6 * 12.0) ** 3
    assert (np.pi / 6 * diameters**3).sum() / box == pytest.approx(0.4, abs=0.06)


def test_shell_is_hollow_and_sheet_is_flat():
    rng = np.random.default_rng(5)
    centres, _, normals = place_nuclei((120, 120, 120), 10.0, 0.1, 0.3, 0.9, "shell", rng)
    assert np.linalg.norm(centres - centres.mean(0), axis=1).min() > 15
    outward = (normals * (centres - centres.mean(0))).sum(axis=1)
    assert (outward > 0).mean() > 0.95
    centres, _, normals = place_nuclei((120, 120, 120), 10.0, 0.1, 0.3, 0.9, "sheet", rng)
    assert np.ptp(centres[:, 0]) < 90
    assert normals[0] == pytest.approx([1, 0, 0], abs=1e-6)


def test_pushing_apart_separates_two_points_about_their_middle():
    centres = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    push_apart(centres, np.array([2.0, 2.0]), 1.0, 5)
    assert centres[:, 2] == pytest.approx([-1.5, 2.5])


def test_the_first_of_two_overlapping_stays():
    centres = np.array([[0.0, 0, 0], [0.0, 0, 1], [0.0, 0, 9]])
    assert keep_separate(centres, np.full(3, 2.0), 1.0).tolist() == [True, False, True]


def test_unknown_arrangement_is_refused():
    with pytest.raises(UsageError, match="choose from scattered"):
        place_nuclei((9, 9, 9), 5.0, 0.1, 0.2, 0.9, "heap", np.random.default_rng(0))
