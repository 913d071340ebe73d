from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cellrt.models.cellseg3d.targets import make_class_targets, membrane_weights  # noqa: E402
from cellrt.runtime.decoding.classes.class_map import (  # noqa: E402
    BACKGROUND,
    FOREGROUND,
    MEMBRANE,
    class_map_of,
)


def blocks(seed: int, shape: tuple[int, int, int] = (9, 10, 11)) -> np.ndarray:
    """Random boxes of labels -1 to 5 over each other."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for _ in range(8):
        low = rng.integers(0, shape)
        high = low + rng.integers(2, 8, 3)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        labels[box] = rng.integers(-1, 6)
    return labels


def brute_force_membrane(labels: np.ndarray, distance: float) -> np.ndarray:
    """Compare every voxel of a cell with every voxel that is not of its cell."""
    places = np.argwhere(labels >= 0)
    values = labels[tuple(places.T)]
    near = np.zeros(labels.shape, bool)
    for here in np.argwhere(labels > 0):
        others = places[values != labels[tuple(here)]]
        near[tuple(here)] = bool((((others - here) ** 2).sum(1) <= distance**2).any())
    return near


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), distance=st.sampled_from([1.0, 1.5, 2.0, 2.9]))
def test_membrane_is_where_a_brute_force_distance_says(seed: int, distance: float) -> None:
    labels = blocks(seed)
    np.testing.assert_array_equal(
        class_map_of(labels, distance) == MEMBRANE, brute_force_membrane(labels, distance)
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), reach=st.floats(1.0, 9.0), smallest=st.floats(0.1, 1.0))
def test_weights_are_those_of_a_brute_force_distance(
    seed: int, reach: float, smallest: float
) -> None:
    classes = class_map_of(blocks(seed))
    weights = membrane_weights(classes, reach, smallest)
    walls = np.argwhere(classes == MEMBRANE)
    for here in np.argwhere(np.ones_like(classes))[::7]:
        distance = np.sqrt(((walls - here) ** 2).sum(1)).min(initial=np.inf)
        fallen = min(max(0.0, distance - 1) / reach, 1.0)
        assert weights[tuple(here)] == pytest.approx(1 - (1 - smallest) * fallen, abs=1e-5)


def test_classes_of_two_cells_beside_background() -> None:
    labels = np.zeros((9, 9, 16), np.int32)
    labels[..., :6], labels[..., 6:12] = 1, 2
    classes = make_class_targets(labels)[0, 4, 4]
    f, m, b = FOREGROUND, MEMBRANE, BACKGROUND
    # One voxel each side of a wall; the stack's end is no border, the background is.
    assert classes.tolist() == [f] * 5 + [m, m] + [f] * 4 + [m] + [b] * 4
    wider = make_class_targets(labels, membrane_voxels=2.0)[0, 4, 4]
    assert wider.tolist() == [f] * 4 + [m] * 4 + [f] * 2 + [m] * 2 + [b] * 4


def test_membrane_goes_round_corners() -> None:
    """With k = 1.5 a voxel that only shares an edge with another cell is membrane."""
    labels = np.ones((3, 4, 4), np.int32)
    labels[:, 2:, 2:] = 2
    assert class_map_of(labels, 1.5)[1, 1, 1] == MEMBRANE
    assert class_map_of(labels, 1.0)[1, 1, 1] == FOREGROUND


def test_unknown_voxels_are_no_border_and_have_no_class() -> None:
    labels = np.ones((4, 4, 8), np.int32)
    labels[..., 4:] = -1
    classes = make_class_targets(labels)[0]
    assert (classes[..., :4] == FOREGROUND).all()
    assert (classes[..., 4:] == -1).all()


def test_weights_fall_from_one_on_both_sides_of_the_membrane() -> None:
    classes = np.full((1, 1, 9), FOREGROUND, np.uint8)
    classes[..., 4], classes[..., 5:] = MEMBRANE, BACKGROUND
    weights = membrane_weights(classes, 2.0, 0.5)[0, 0]
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.5])


def test_without_membrane_all_weights_are_the_smallest() -> None:
    targets = make_class_targets(np.zeros((4, 4, 4), np.int32), smallest_weight=0.3)
    assert (targets[0] == BACKGROUND).all()
    np.testing.assert_allclose(targets[1], 0.3)
