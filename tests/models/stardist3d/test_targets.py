from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cellrt.models.stardist3d.targets import make_star_targets
from cellrt.runtime.decoding.star.directions import directions
from cellrt.simulation import simulate_nuclei

MARGIN = 14
RAYS = 36


@pytest.fixture(scope="module")
def nuclei() -> np.ndarray:
    return simulate_nuclei((52, 54, 56), diameter_voxels=12, seed=5).labels.astype(np.int32)


def first_exit(labels: np.ndarray, cell: int, start: np.ndarray, direction: np.ndarray) -> float:
    """Where a ray leaves a cell: it is in one voxel between two faces that it crosses."""
    faces = np.arange(1, 40)[:, None] / np.abs(direction)  # it starts on faces along all axes
    lengths = np.concatenate([[0.0], np.sort(faces.ravel())])
    for near, far in pairwise(lengths):
        voxel = np.floor(start + (near + far) / 2 * direction + 0.5).astype(int)
        if far - near > 1e-9 and labels[tuple(voxel)] != cell:
            return float(near)
    raise AssertionError("the cell has no end")


def test_radii_end_at_the_face_where_the_label_changes(nuclei: np.ndarray) -> None:
    targets = make_star_targets(nuclei, MARGIN, rays=RAYS)
    assert targets.shape == (1 + RAYS, 12, 13, 14)
    rng = np.random.default_rng(0)
    inside = np.argwhere(targets[0] > 0)
    mixed = 0
    for place in rng.permutation(inside)[:150]:
        block = nuclei[tuple(slice(MARGIN + 2 * i, MARGIN + 2 * i + 2) for i in place)]
        middle = MARGIN + 2 * place + 0.5
        # In a block of several cells it is the deepest voxel's: one of them explains all rays.
        mixed += len(np.unique(block)) > 1
        found = targets[(slice(1, None), *place)]
        expected = [
            np.array([first_exit(nuclei, cell, middle, d) for d in directions(RAYS)])
            for cell in np.unique(block[block > 0])
        ]
        assert min(np.abs(found - e).max() for e in expected) < 1e-4
    assert mixed > 20


def test_a_ball_has_its_radius_along_all_rays_and_less_towards_the_nearer_side() -> None:
    z, y, x = np.indices((48, 48, 48)) - 23.5
    ball = (z * z + y * y + x * x <= 10.0**2).astype(np.int32)
    targets = make_star_targets(ball, 8, rays=96)
    near_middle = targets[1:, 7, 7, 7]  # its block ends where the ball's centre is
    centre = np.array([-1.0, -1.0, -1.0])
    along = directions(96) @ centre
    exact = -along + np.sqrt(along**2 + 10.0**2 - 3)
    assert np.abs(near_middle - exact).max() < 1.0
    assert np.abs(near_middle - exact).mean() < 0.4
    outside = targets[0] == 0
    assert not targets[1:, outside].any()


def test_cells_that_go_on_beyond_do_not_count(nuclei: np.ndarray) -> None:
    wide = make_star_targets(nuclei, MARGIN, rays=RAYS)
    narrow = make_star_targets(nuclei[12:-12, 12:-12, 12:-12], 2, rays=RAYS)
    counted = narrow[0] >= 0
    assert 0 < (~counted).sum() < counted.size
    np.testing.assert_array_equal(narrow[:, counted], wide[:, counted])
    assert not narrow[1:, ~counted].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_targets_of_a_mirrored_image_are_mirrored(
    nuclei: np.ndarray, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.flip(make_star_targets(nuclei, MARGIN, rays=RAYS), axis + 1)
    turned = directions(RAYS).copy()
    turned[:, axis] *= -1
    monkeypatch.setattr("cellrt.models.stardist3d.targets.directions", lambda count: turned)
    mirrored = make_star_targets(np.flip(nuclei, axis), MARGIN, rays=RAYS)
    np.testing.assert_allclose(mirrored[0], expected[0], atol=1e-6)
    # A block with two equally deep cells may be either's.
    assert (np.abs(mirrored - expected).max(axis=0) > 1e-3).mean() < 0.01
    assert (mirrored[0] > 0).mean() > 0.1
