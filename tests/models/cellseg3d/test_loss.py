from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.cellseg3d.loss import KINDS, cellseg3d_loss  # noqa: E402


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 3, 4, 5, generator=generator)
    classes = torch.randint(-1, 3, (2, 3, 4, 5), generator=generator)
    weights = 0.5 + 0.5 * torch.rand(2, 3, 4, 5, generator=generator)
    return logits, torch.stack([classes.float(), weights], dim=1)


def written_out(logits: torch.Tensor, targets: torch.Tensor, kind: str, alpha: float) -> float:
    """Equations 5 to 7 voxel by voxel in float64."""
    sums = {"foreground": [0.0, 0.0], "others": [0.0, 0.0]}
    scores = logits.double().numpy()
    for n, z, y, x in itertools.product(*(range(s) for s in targets[:, 0].shape)):
        wanted, weight = targets[n, :, z, y, x].tolist()
        if wanted < 0:
            continue
        raw = np.exp(scores[n, :, z, y, x])
        for index, p in enumerate(raw / raw.sum()):
            g = float(index == wanted)
            if index == 2 and kind in ("3dcellseg", "3dcellseg-no-weights"):
                p = p / (p + alpha)
            w = weight if kind in ("3dcellseg", "dice+weights") else 1.0
            total = sums["foreground" if index == 2 else "others"]
            total[0] += p * g * w
            total[1] += p**2 + g**2
    return sum(1 - (2 * top + 1) / (bottom + 1) for top, bottom in sums.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_equations(kind: str) -> None:
    logits, targets = random_case()
    losses = cellseg3d_loss(logits, targets, kind=kind, alpha=0.2)
    assert losses["loss"].item() == pytest.approx(written_out(logits, targets, kind, 0.2), 1e-5)
    assert losses["loss"] == losses["foreground"] + losses["others"]


def test_the_four_kinds_differ() -> None:
    logits, targets = random_case()
    values = {cellseg3d_loss(logits, targets, kind=kind)["loss"].item() for kind in KINDS}
    assert len(values) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_voxels_take_no_part(kind: str) -> None:
    logits, targets = random_case()
    changed = logits + 5 * (targets[:, :1] < 0) * torch.tensor([1.0, -1, 2]).view(1, 3, 1, 1, 1)
    first = cellseg3d_loss(logits, targets, kind=kind)["loss"]
    second = cellseg3d_loss(changed, targets, kind=kind)["loss"]
    assert not torch.equal(logits, changed)
    assert first.item() == second.item()


def test_nothing_known_gives_zero_loss_not_nan() -> None:
    targets = torch.full((1, 2, 2, 2, 2), -1.0)
    assert cellseg3d_loss(torch.ones(1, 3, 2, 2, 2), targets)["loss"].item() == 0.0


def test_right_answers_lose_little_and_wrong_ones_everything() -> None:
    classes = torch.randint(0, 3, (1, 8, 8, 8), generator=torch.Generator().manual_seed(1))
    targets = torch.stack([classes.float(), torch.ones(1, 8, 8, 8)], dim=1)
    right = 30 * torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()
    losses = cellseg3d_loss(right, targets)
    assert losses["others"].item() == pytest.approx(0, abs=1e-6)
    assert 0 < losses["foreground"].item() < 0.01  # p / (p + 0.1) ends at 0.91
    assert cellseg3d_loss(right.roll(1, dims=1), targets)["loss"].item() > 1.9


def test_foreground_of_low_confidence_costs_more_than_with_dice() -> None:
    """Wrong foreground that grows from p = 0.1 on (fig. 1 of the paper)."""
    targets = torch.ones(1, 2, 8, 8, 8)
    targets[:, 0] = 0
    targets[:, 0, :2] = 2  # some foreground, so that there is an overlap to lose
    logits = torch.zeros(1, 3, 8, 8, 8)
    logits[:, 2] = np.log(0.1 / 0.45)
    logits[:, 2, :2] = 10
    grown = logits.clone()
    grown[:, 2, 2:] += 0.1
    rise = {
        kind: cellseg3d_loss(grown, targets, kind=kind)["foreground"].item()
        - cellseg3d_loss(logits, targets, kind=kind)["foreground"].item()
        for kind in ("3dcellseg-no-weights", "dice")
    }
    assert rise["3dcellseg-no-weights"] > 3 * rise["dice"] > 0
