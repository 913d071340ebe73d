from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.harmonicnet.loss import harmonicnet_loss  # noqa: E402

RADIUS = 4.0
UNIT = RADIUS * math.sqrt(4 * math.pi)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_one_scale_by_hand() -> None:
    # Four voxels along x: deep, shallow, background, unknown.
    targets = torch.zeros(1, 3, 1, 1, 4)
    targets[0, 0, 0, 0] = torch.tensor([0.8, 0.2, 0.0, -1.0])
    targets[0, 1, 0, 0, :2] = 1.2 * UNIT
    targets[0, 2, 0, 0, :2] = -0.1 * UNIT
    raw = torch.zeros(1, 3, 1, 1, 4)
    raw[0, 0, 0, 0] = torch.tensor([logit(0.7), logit(0.5), logit(0.1), logit(0.9)])
    raw[0, 1, 0, 0] = torch.tensor([1.0, 1.3, 55.0, 55.0])
    found = harmonicnet_loss(
        [raw], targets, nominal_radius=RADIUS, distance_weight=0.25, scale_weights=(7.0,)
    )
    # Deep voxels and all others each by their mean; the unknown one is neither.
    distance = 0.1 + (0.3 + 0.1) / 2
    harmonics = ((0.2 + 0.1) + (0.1 + 0.1)) / 2
    assert float(found["distance"]) == pytest.approx(distance, abs=1e-6)
    assert float(found["harmonics"]) == pytest.approx(harmonics, abs=1e-6)
    assert float(found["loss"]) == pytest.approx(0.25 * distance + 0.5 * harmonics, abs=1e-6)


def test_coarse_scales_see_the_mean_depth_and_the_deepest_voxels_cell() -> None:
    fine = torch.zeros(1, 2, 4, 4, 4)
    fine[0, 0, :2, :2, :2] = 0.4
    fine[0, 0, 1, 1, 1] = 0.8
    fine[0, 1, :2, :2, :2] = 2 * UNIT
    fine[0, 1, 1, 1, 1] = 3 * UNIT
    fine[0, 0, 2, 2, 2] = -1  # its block does not count
    coarse_depth = (7 * 0.4 + 0.8) / 8
    perfect = [torch.zeros(1, 2, 2, 2, 2), torch.zeros(1, 2, 4, 4, 4)]
    for raw, places in zip(
        perfect, ([(0, 0, 0)], list(torch.nonzero(fine[0, 0] > 0))), strict=True
    ):
        raw[0, 0] = -30.0
        for place in places:
            z, y, x = (int(i) for i in place)
            depth = coarse_depth if raw.shape[-1] == 2 else float(fine[0, 0, z, y, x])
            raw[0, 0, z, y, x] = logit(depth)
            raw[0, 1, z, y, x] = 3.0 if raw.shape[-1] == 2 else float(fine[0, 1, z, y, x]) / UNIT
    perfect[0][0, 0, 1, 1, 1] = 5.0
    kwargs = {"nominal_radius": RADIUS, "scale_weights": (1.0, 3.0)}
    found = harmonicnet_loss(perfect, fine, **kwargs)
    assert float(found["loss"]) == pytest.approx(0.0, abs=1e-5)
    # An error of the coarse scale weighs a quarter of all, and half of it is of the harmonics.
    perfect[0][0, 1, 0, 0, 0] += 0.5
    found = harmonicnet_loss(perfect, fine, **kwargs)
    assert float(found["loss"]) == pytest.approx(0.25 * 0.5 * 0.5, abs=1e-5)


def test_nothing_to_learn_is_no_error() -> None:
    raw = torch.zeros(1, 5, 2, 2, 2, requires_grad=True)
    unknown = torch.zeros(1, 5, 2, 2, 2)
    unknown[:, 0] = -1
    loss = harmonicnet_loss([raw], unknown, nominal_radius=8, scale_weights=(1.0,))["loss"]
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(raw.grad).all()


def test_an_error_of_radii_is_that_of_the_surfaces_and_weighs_deep_voxels_most() -> None:
    # Two voxels; a degree up to 1, so that the surfaces can be written down.
    targets = torch.zeros(1, 5, 1, 1, 2)
    targets[0, 0, 0, 0] = torch.tensor([0.9, 0.3])
    targets[0, 1] = UNIT
    raw = torch.zeros(1, 5, 1, 1, 2)
    raw[0, 0, 0, 0] = torch.tensor([logit(0.9), logit(0.3)])
    raw[0, 1, 0, 0] = torch.tensor([1.25, 0.9])  # a quarter too large, a tenth too small
    kwargs = {"nominal_radius": RADIUS, "scale_weights": (1.0,), "shape_error": "radii"}
    found = harmonicnet_loss([raw], targets, **kwargs)
    expected = (0.9 * 0.25 + 0.3 * 0.1) / 1.2
    assert float(found["harmonics"]) == pytest.approx(expected, abs=1e-5)
    # Of degree 1 the radius is sqrt(3) cos(angle) times the coefficient: |cos| is 1/2 on average.
    raw[0, 1] = 1.0
    raw[0, 3, 0, 0, 0] = 0.2
    found = harmonicnet_loss([raw], targets, **kwargs)
    expected = 0.9 * 0.2 * math.sqrt(3) / 2 / 1.2
    assert float(found["harmonics"]) == pytest.approx(expected, rel=0.03)
