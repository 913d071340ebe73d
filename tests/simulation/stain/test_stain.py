"""Wall stain on hand-made cells."""

from __future__ import annotations

import numpy as np
import pytest

from cellrt.simulation.parameters.membranes import MembraneParameters
from cellrt.simulation.stain.stain import paint_membranes
from cellrt.simulation.stain.walls import deposit_walls, pair_noise, pair_share


@pytest.fixture
def quarters():
    labels = np.ones((6, 20, 20), np.int32)
    labels[:, 10:] += 1
    labels[:, :, 10:] += 2
    return labels


def test_walls_lie_half_in_each_cell(quarters):
    walls = deposit_walls(quarters, 1, 0.0, 0.0, 1.0)
    assert np.array_equal(np.flatnonzero(walls[3, 2]), [9, 10])
    assert walls[3, 2, 9] == walls[3, 2, 10] == 1.0
    assert walls[3, 10, 10] == 1.5, "a junction is brighter"


def test_outer_walls_have_their_own_strength(quarters):
    quarters[quarters == 2] = 0
    walls = deposit_walls(quarters, 1, 0.0, 0.0, 2.0)
    assert walls[3, 9, 2] == 2.0
    assert walls[3, 2, 9] == 1.0


def test_strength_belongs_to_the_pair_of_cells():
    shares = np.array([[pair_share(a, b, 7) for a in range(1, 60)] for b in range(1, 60)])
    assert np.array_equal(shares, shares.T)
    upper = shares[np.triu_indices(59, 1)]
    assert upper.min() >= 0
    assert upper.max() < 1
    assert upper.mean() == pytest.approx(0.5, abs=0.03)
    assert pair_share(1, 2, 7) != pair_share(1, 2, 8)
    noise = np.array([pair_noise(a, b, 3) for a in range(50) for b in range(a)])
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_missing_walls_are_weak(quarters):
    some = [deposit_walls(quarters, seed, 0.0, 0.5, 1.0)[3, 2, 9] for seed in range(60)]
    assert set(np.round(some, 3)) == {np.float32(0.15), np.float32(1.0)}
    assert 0.3 < np.mean(np.array(some) < 0.5) < 0.7


def test_thicker_walls_are_wider(quarters):
    def width(thickness):
        parameters = MembraneParameters(
            thickness_voxels=thickness, weak_share=0, wall_spread=0, cytoplasm=0.0, haze=0.0
        )
        signal = paint_membranes(quarters, 10.0, parameters, np.random.default_rng(0))
        profile = signal[3, 3]
        return np.count_nonzero(profile > 0.4 * profile.max())

    assert [width(thickness) for thickness in (1.0, 2.0, 3.0)] == [1, 2, 4]


def test_fade_darkens_the_core():
    labels = np.zeros((48, 48, 48), np.int32)
    labels[4:-4, 4:-4, 4:-4] = 1 + (
        np.indices((40, 40, 40)) // 10 * [[[[1]]], [[[4]]], [[[16]]]]
    ).sum(0)
    plain = MembraneParameters(wall_spread=0, weak_share=0, spots_per_cell=0)
    faded = MembraneParameters(wall_spread=0, weak_share=0, spots_per_cell=0, core_fade_diameters=1)
    ratios = paint_membranes(labels, 10.0, faded, np.random.default_rng(1)) / paint_membranes(
        labels, 10.0, plain, np.random.default_rng(1)
    )
    assert ratios[24, 24, 24] < 0.4
    assert ratios[24, 24, 4] > 0.6
