from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed")

from cellrt.training.data.grid import median_diameter_um, zoom_image, zoom_labels


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return np.linalg.norm(grid - np.array(centre), axis=-1) <= radius


def test_diameter_of_a_ball_in_um() -> None:
    labels = ball((40, 40, 40), (20, 20, 20), 10).astype(np.int32)
    assert median_diameter_um(labels, (0.5, 0.5, 0.5)) == pytest.approx(10, rel=0.02)
    assert median_diameter_um(labels * 0, (1, 1, 1)) == 0


def test_cells_at_the_faces_do_not_make_the_median_smaller() -> None:
    labels = np.zeros((60, 20, 20), np.int32)
    for index, z in enumerate((10, 30, 50)):
        labels[ball(labels.shape, (z, 10, 10), 6)] = index + 1
    whole = median_diameter_um(labels, (1, 1, 1))
    labels[0, :3, :3], labels[-1, :3, :3] = 4, 5
    assert median_diameter_um(labels, (1, 1, 1)) == pytest.approx(whole)


def test_image_and_labels_stay_aligned() -> None:
    inside = ball((20, 31, 30), (9, 14, 16), 6)
    zoom = (1.7, 0.6, 1.3)
    image = zoom_image(inside.astype(np.float32), zoom)
    labels = zoom_labels(inside.astype(np.int32), zoom)
    assert image.shape == labels.shape == (34, 19, 39)
    centre_image = [np.average(i, weights=image) for i in np.indices(image.shape)]
    centre_labels = [i[labels > 0].mean() for i in np.indices(labels.shape)]
    np.testing.assert_allclose(centre_image, centre_labels, atol=0.25)


def test_ramp_keeps_its_place_when_the_grid_changes() -> None:
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32), (2, 2, 16)) + 0.5
    finer = zoom_image(ramp, (1, 1, 2))[0, 0]
    np.testing.assert_allclose(finer[4:-4], (np.arange(32) + 0.5)[4:-4] / 2, atol=1e-5)
