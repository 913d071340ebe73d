"""Guide functions: what they are fitted for, and that moving an image only turns them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.harmonic_embedding.guides import (  # noqa: E402
    fit_guides,
    guide_maps,
    object_waves,
)
from cellrt.models.harmonic_embedding.targets import (  # noqa: E402
    foreground_loss,
    harmonic_loss,
    make_targets,
    places_of,
)
from cellrt.runtime.model.guides import turns  # noqa: E402

FREQUENCIES = np.array([[0.013, -0.02], [0.0, 0.017], [0.019, 0.004]])
PHASES = np.array([0.3, 2.0, 5.5])


def squares(edge=8, count=6):
    rows = np.arange(edge * count) // edge
    return (1 + rows[:, None] * count + rows).astype(np.int32)


def means(labels, origin):
    """Mean of the sines over each label, as the definition says it."""
    y, x = np.indices(labels.shape)
    found = []
    for (fy, fx), phase in zip(FREQUENCIES, PHASES, strict=True):
        guide = np.sin(2 * np.pi * (fy * (y + origin[0]) + fx * (x + origin[1])) + phase)
        found.append([guide[labels == label].mean() for label in range(1, labels.max() + 1)])
    return np.array(found).T


def test_fitted_guides_tell_all_objects_of_an_image_apart():
    guides = fit_guides([squares()], dimensions=12, margin=0.5, highest_frequency=0.3 / 9)
    assert guides.hinge_loss == 0
    assert guides.close_pairs == 0
    assert guides.smallest_l1 >= 0.5
    assert 0 < guides.smallest_l2 <= guides.smallest_l1
    assert guides.pairs > 0


def test_fitting_lowers_the_loss_and_what_is_left_is_said():
    # Two dimensions do not hold 36 objects a margin of 0.5 apart.
    guides = fit_guides([squares()], dimensions=2, margin=0.5, highest_frequency=0.3 / 9)
    assert guides.hinge_loss > 0
    assert guides.close_pairs > 0
    assert guides.smallest_l1 < 0.5


def test_the_same_seed_gives_the_same_guides():
    one, again, other = (
        fit_guides([squares()], dimensions=3, margin=0.5, highest_frequency=0.03, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_images_without_two_objects_leave_guides_as_they_begin():
    guides = fit_guides([np.zeros((9, 9), int)], dimensions=3, margin=0.5, highest_frequency=0.03)
    assert guides.pairs == 0
    assert len(guides.phases) == 3


@pytest.mark.parametrize("origin", [(0, 0), (640, 17), (7001, 4096)])
def test_targets_are_mean_guides_wherever_a_patch_lies(origin):
    labels = squares()[None]
    targets = torch.from_numpy(make_targets(labels, FREQUENCIES))[None]
    turned = torch.from_numpy(turns(origin, FREQUENCIES))[None]
    places = places_of(targets, turned, torch.from_numpy(PHASES)).numpy()[0]
    expected = means(labels[0], origin)[labels[0] - 1]
    np.testing.assert_allclose(places[:, 0], np.moveaxis(expected, -1, 0), atol=1e-4)


def test_a_margin_shows_whole_objects_and_moves_nothing():
    labels = squares()
    wide = make_targets(labels[None], FREQUENCIES, margin=5)[:, 0, 5:-5, 5:-5]
    # The pixel at (5, 5) lies at the origin: what is left of it has negative positions.
    places = places_of(
        torch.from_numpy(wide)[None, :, None], torch.zeros(1, 3), torch.from_numpy(PHASES)
    ).numpy()[0, :, 0]
    expected = means(labels, (-5, -5))[labels[5:-5, 5:-5] - 1]
    np.testing.assert_allclose(places, np.moveaxis(expected, -1, 0), atol=1e-5)


def test_background_and_unknown_pixels_have_no_object():
    labels = np.array([[[-1, 0, 4, 4]]], np.int32)
    targets = make_targets(labels, FREQUENCIES)
    assert targets[-1].tolist() == [[[-1, 0, 1, 1]]]
    assert not targets[:-1, 0, 0, :2].any()
    waves = object_waves(np.array([[0, 0, 1, 1]]), FREQUENCIES)
    np.testing.assert_allclose(targets[:3, 0, 0, 2], waves[1].real, atol=1e-6)


@pytest.mark.parametrize("step", [1, 4])
def test_maps_of_a_layer_are_the_guides_at_the_middle_of_its_pixels(step):
    origin = (640, 1280)
    turned = torch.from_numpy(turns(origin, FREQUENCIES))[None]
    tensors = (torch.from_numpy(a.astype(np.float32)) for a in (FREQUENCIES, PHASES))
    maps = guide_maps(turned, *tensors, (5, 7), step)[0].numpy()
    y = origin[0] + (np.arange(5)[:, None] + 0.5) * step - 0.5
    x = origin[1] + (np.arange(7) + 0.5) * step - 0.5
    for guide, (fy, fx), phase in zip(maps, FREQUENCIES, PHASES, strict=True):
        np.testing.assert_allclose(guide, np.sin(2 * np.pi * (fy * y + fx * x) + phase), atol=1e-4)


def test_the_loss_is_the_distance_over_the_foreground():
    places, foreground = torch.zeros(1, 2, 1, 1, 3), torch.tensor([[[[1.0, 0.0, -1.0]]]])
    embedding = torch.tensor([[0.5, 9.0, 9.0], [-0.1, 9.0, 9.0]]).reshape(1, 2, 1, 1, 3)
    assert float(harmonic_loss(embedding, places, foreground)) == pytest.approx(0.3)
    logits = torch.tensor([20.0, -20.0, 5.0]).reshape(1, 1, 1, 3)
    assert float(foreground_loss(logits, foreground)) == pytest.approx(0, abs=1e-6)
    logits = torch.tensor([0.0, 0.0, 5.0]).reshape(1, 1, 1, 3)
    assert float(foreground_loss(logits, foreground)) == pytest.approx(np.log(2))
