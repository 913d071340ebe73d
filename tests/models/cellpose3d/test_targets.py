from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.cellpose3d.targets import (  # noqa: E402
    cellpose3d_loss,
    make_targets,
    near_other_label,
)


def test_walls_become_background_and_flows_stay_those_of_the_whole_cell() -> None:
    labels = np.zeros((3, 3, 8), np.int32)
    labels[..., :4], labels[..., 4:] = 1, 2
    plain = make_targets(labels)
    walls = make_targets(labels, boundary_voxels=1)
    assert plain[3].all()
    np.testing.assert_array_equal(walls[3, 1, 1], [1, 1, 1, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(plain[:3], walls[:3])
    assert (walls[2, 1, 1] > 0).tolist() == [True, True, False, False] * 2  # towards the centre


def test_wider_walls_take_more_voxels() -> None:
    labels = np.ones((1, 1, 10), np.int32)
    labels[..., 5:] = 2
    assert near_other_label(labels, 2)[0, 0].nonzero()[0].tolist() == [3, 4, 5, 6]


def test_unknown_voxels_neither_count_nor_make_walls() -> None:
    labels = np.ones((4, 4, 4), np.int32)
    labels[0] = -1
    targets = make_targets(labels, boundary_voxels=1)
    assert (targets[3, 0] == -1).all()
    assert (targets[3, 1:] == 1).all()
    assert (targets[:3, 0] == 0).all()


def test_loss_of_hand_made_values() -> None:
    logits = torch.zeros(1, 4, 1, 1, 2)
    targets = torch.zeros(1, 4, 1, 1, 2)
    targets[0, :, 0, 0, 0] = torch.tensor([0.5, 0.0, -0.5, 1.0])
    labels = torch.tensor([[[[1, 0]]]])
    losses = cellpose3d_loss(logits, targets, labels, flow_weight=3.0)
    assert losses["foreground"].item() == pytest.approx(math.log(2))
    assert losses["flow"].item() == pytest.approx(0.5 / 3)  # only inside the cell
    assert losses["loss"].item() == pytest.approx(math.log(2) + 0.5)
    mean_error = cellpose3d_loss(logits, targets, labels, flow_weight=0.0, foreground="l1")
    assert mean_error["loss"].item() == pytest.approx(0.5)


def test_ignored_voxels_do_not_change_the_loss() -> None:
    torch.manual_seed(1)
    labels = np.zeros((4, 4, 4), np.int32)
    labels[:2, :2, :2] = 1
    labels[3] = -1
    targets = torch.from_numpy(make_targets(labels))[None]
    known = torch.from_numpy(labels)[None]
    logits = torch.randn(1, 4, 4, 4, 4)
    changed = logits.clone()
    changed[:, :, 3] += 5.0
    first = cellpose3d_loss(logits, targets, known, flow_weight=1.0)["loss"]
    second = cellpose3d_loss(changed, targets, known, flow_weight=1.0)["loss"]
    assert first.item() == second.item()


def test_nothing_known_gives_zero_loss_not_nan() -> None:
    labels = np.full((2, 2, 2), -1, np.int32)
    targets = torch.from_numpy(make_targets(labels))[None]
    loss = cellpose3d_loss(
        torch.ones(1, 4, 2, 2, 2), targets, torch.from_numpy(labels)[None], flow_weight=1.0
    )
    assert loss["loss"].item() == 0.0
