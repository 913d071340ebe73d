from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.stardist3d.loss import stardist3d_loss  # noqa: E402


def test_the_loss_by_hand() -> None:
    # Along x: half deep, background, unknown; two rays.
    targets = torch.zeros(1, 3, 1, 1, 3)
    targets[0, 0, 0, 0] = torch.tensor([0.5, 0.0, -1.0])
    targets[0, 1:, 0, 0, 0] = torch.tensor([6.0, 10.0])
    raw = torch.zeros(1, 3, 1, 1, 3)
    raw[0, 0, 0, 0] = torch.tensor([0.0, math.log(3), 9.0])  # 0.5, 0.75
    raw[0, 1:, 0, 0] = torch.tensor([[1.0, 0.5, 70.0], [1.0, -0.25, 70.0]])
    found = stardist3d_loss(
        raw, targets, nominal_radius=8.0, radii_weight=0.2, background_weight=0.1
    )
    probability = (math.log(2) + math.log(4)) / 2
    radii = (2 + 2) / 2  # of the one voxel that counts
    outside = (0.5 * 8.0 + (4.0 + 2.0) / 2) / 2
    assert float(found["probability"]) == pytest.approx(probability, rel=1e-5)
    assert float(found["radii"]) == pytest.approx(radii, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(
        probability + 0.2 * (radii + 0.1 * outside), rel=1e-5
    )


def test_radii_are_weighted_by_depth() -> None:
    targets = torch.zeros(1, 2, 1, 1, 40)
    targets[0, 0, 0, 0, :20], targets[0, 0, 0, 0, 20:] = 1.0, 0.25
    targets[0, 1] = 8.0
    raw = torch.ones(1, 2, 1, 1, 40)
    raw[0, 1, 0, 0, :20] = 1.5  # wrong by 4 voxels
    raw[0, 1, 0, 0, 20:] = 2.0  # by 8
    found = stardist3d_loss(raw, targets, nominal_radius=8.0)
    assert float(found["radii"]) == pytest.approx((4 * 1 + 8 * 0.25) / 1.25, rel=1e-5)


def test_nothing_to_learn_is_no_error() -> None:
    raw = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
    unknown = torch.zeros(1, 3, 2, 2, 2)
    unknown[:, 0] = -1
    loss = stardist3d_loss(raw, unknown, nominal_radius=8)["loss"]
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(raw.grad).all()
