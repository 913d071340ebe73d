from __future__ import annotations

import math

import numpy as np
import pytest

from cellrt.models.harmonicnet.targets import make_harmonic_targets
from cellrt.runtime.decoding.star.harmonics import power_per_degree
from cellrt.runtime.decoding.star.shapes import encode
from cellrt.simulation import simulate_nuclei

MARGIN = 16


@pytest.fixture(scope="module")
def nuclei() -> np.ndarray:
    return simulate_nuclei((56, 60, 64), diameter_voxels=12, seed=5).labels.astype(np.int32)


@pytest.mark.parametrize("radius", [6.0, 8.5, 11.0])
def test_a_ball_is_its_radius_and_nothing_else(radius: float) -> None:
    z, y, x = np.indices((48, 48, 48)) - 23.5
    ball = (z * z + y * y + x * x <= radius**2).astype(np.int32)
    targets = make_harmonic_targets(ball, 8, order=5)
    assert targets.shape == (37, 16, 16, 16)
    inside = targets[0] > 0
    # The radius of the voxels that are there is that of a ball of their volume.
    same_volume = (3 * ball.sum() / (4 * math.pi)) ** (1 / 3)
    assert targets[1][inside] == pytest.approx(same_volume * math.sqrt(4 * math.pi), rel=5e-3)
    assert np.abs(targets[2:, inside]).max() < 0.02 * targets[1][inside].max()
    assert not targets[1:, ~inside].any()
    assert np.unravel_index(targets[0].argmax(), targets[0].shape) in {
        (a, b, c) for a in (7, 8) for b in (7, 8) for c in (7, 8)
    }


def test_every_voxel_of_a_cell_has_the_coefficients_that_encode_gives(nuclei: np.ndarray) -> None:
    targets = make_harmonic_targets(nuclei, MARGIN, order=4)
    shapes = encode(nuclei, order=4)
    seen = 0
    for row, cell in enumerate(shapes.ids):
        if shapes.flags[row, 0]:  # cut by the border
            continue
        for place in np.ndindex(targets.shape[1:]):
            block = tuple(slice(MARGIN + 2 * i, MARGIN + 2 * i + 2) for i in place)
            if (nuclei[block] == cell).all():
                seen += 1
                # Fewer directions than `encode` has, and the same shape within 2 % of the radius.
                difference = targets[(slice(1, None), *place)] - shapes.coefficients[row]
                assert np.linalg.norm(difference) < 0.02 * shapes.coefficients[row, 0]
    assert seen > 100


def test_cells_that_go_on_beyond_do_not_count(nuclei: np.ndarray) -> None:
    wide, narrow = (
        make_harmonic_targets(nuclei[box], margin, order=3)
        for box, margin in (((slice(None),) * 3, MARGIN), ((slice(14, -14),) * 3, 2))
    )
    counted = narrow[0] >= 0
    assert 0 < (~counted).sum() < counted.size
    # What still counts is the same as with all of the surroundings in view.
    np.testing.assert_allclose(narrow[:, counted], wide[:, counted], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_targets_of_a_mirrored_image_are_mirrored(nuclei: np.ndarray, axis: int) -> None:
    """Harmonics keep their value or change their sign where an axis is turned round."""
    mirrored = make_harmonic_targets(np.flip(nuclei, axis), MARGIN, order=3)
    expected = np.flip(make_harmonic_targets(nuclei, MARGIN, order=3), axis + 1).copy()
    signs = []
    for degree in range(4):
        for m in range(-degree, degree + 1):
            along_z = (-1) ** (degree + m)
            along_y = -1 if m < 0 else 1  # sines of the azimuth, which starts at x
            along_x = (-1) ** abs(m) * along_y
            signs.append((along_z, along_y, along_x)[axis])
    expected[1:] *= np.array(signs, np.float32)[:, None, None, None]
    # A block with two equally deep cells may be either's.
    apart = np.abs(mirrored - expected).max(axis=0) > 0.3
    assert apart.mean() < 0.01
    assert (mirrored[0] > 0).mean() > 0.1


def test_a_quarter_turn_keeps_the_power_of_each_degree(nuclei: np.ndarray) -> None:
    here = make_harmonic_targets(nuclei, MARGIN, order=4)
    turned = make_harmonic_targets(np.rot90(nuclei, axes=(0, 2)), MARGIN, order=4)
    back = np.rot90(turned, k=-1, axes=(1, 3))
    np.testing.assert_allclose(back[0], here[0], atol=1e-6)
    inside = here[0] > 0.5
    one, other = (np.sqrt(power_per_degree(t[1:, inside].T)) for t in (here, back))
    np.testing.assert_allclose(one, other, atol=0.02 * one[:, 0].mean())
