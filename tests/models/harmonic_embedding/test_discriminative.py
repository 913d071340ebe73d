"""The loss that embeddings by guides are compared with."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.harmonic_embedding.discriminative import discriminative_loss  # noqa: E402


def loss_of(places: list[tuple[float, float]], labels: list[int]) -> float:
    embedding = torch.tensor(places).T.reshape(1, 2, 1, 1, len(places))
    return float(discriminative_loss(embedding, torch.tensor(labels).reshape(1, 1, 1, -1)))


def test_objects_that_are_compact_and_apart_cost_their_distance_from_the_origin() -> None:
    found = loss_of([(2.0, 0.0), (2.2, 0.0), (-2.0, 0.0), (9.0, 9.0)], [1, 1, 5, 0])
    assert found == pytest.approx(0.001 * (2.1 + 2.0) / 2, abs=1e-6)


def test_pull_and_push_by_hand() -> None:
    # Means at 0 and 1, three apart are wanted; the first one's pixels lie 0.8 from it.
    found = loss_of([(0.0, 0.8), (0.0, -0.8), (1.0, 0.0)], [1, 1, 2])
    expected = ((0.8 - 0.5) ** 2 + 0) / 2 + (3 - 1) ** 2 + 0.001 * (0 + 1) / 2
    assert found == pytest.approx(expected, abs=1e-5)


def test_nothing_to_learn_is_no_error() -> None:
    embedding = torch.zeros(1, 2, 1, 2, 2, requires_grad=True)
    discriminative_loss(embedding, torch.zeros(1, 1, 2, 2, dtype=torch.int64)).backward()
    assert torch.equal(embedding.grad, torch.zeros_like(embedding))
    same = torch.ones(1, 2, 1, 2, 2, requires_grad=True)
    discriminative_loss(same, torch.ones(1, 1, 2, 2, dtype=torch.int64)).backward()
    assert torch.isfinite(same.grad).all()
