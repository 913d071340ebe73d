from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")

from cellrt.runtime.grid.brightness_kernels import DARKEST  # noqa: E402
from cellrt.training.data.accidents import Scene  # noqa: E402
from cellrt.training.data.augment import (  # noqa: E402
    Geometry,
    acquire,
    beyond,
    change_contrast,
    draw_geometry,
    sample_patch,
)
from cellrt.training.recipe import AugmentTable  # noqa: E402

SHAPE = (24, 24, 24)


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """A bright ball per label."""
    labels = np.zeros((40, 44, 48), np.int32)
    grid = np.indices(labels.shape)
    for index, centre in enumerate([(12, 12, 12), (26, 20, 30), (14, 30, 36)]):
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        labels[distance <= 7] = index + 1
    return (labels > 0).astype(np.float16), labels


@pytest.mark.parametrize("seed", range(8))
def test_bright_voxels_stay_on_their_labels(seed: int) -> None:
    image, labels = blobs()
    rng = np.random.default_rng(seed)
    table = AugmentTable(elastic_probability=1.0, permute_probability=0.5)
    geometry = draw_geometry(np.array([20.0, 20.0, 24.0]), table, rng)
    patch, drawn = sample_patch(image, labels, geometry, SHAPE, margin=3)
    assert patch.shape == SHAPE
    assert drawn.shape == (30, 30, 30)
    inner = drawn[3:-3, 3:-3, 3:-3]
    bright = patch.numpy() > 0.5
    known = inner >= 0
    agreement = (bright == (inner > 0))[known].mean()
    assert agreement > 0.97


def test_identity_geometry_copies_the_stack() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((20, 20, 20)).astype(np.float16)
    labels = rng.integers(0, 5, (20, 20, 20)).astype(np.int32)
    geometry = Geometry(np.full(3, 9.5), np.eye(3), np.zeros((3, 5, 5, 5)))
    patch, drawn = sample_patch(image, labels, geometry, (8, 8, 8), margin=2)
    np.testing.assert_allclose(patch.numpy(), image[6:14, 6:14, 6:14], atol=1e-5)
    np.testing.assert_array_equal(drawn, labels[4:16, 4:16, 4:16])


def test_beyond_the_stack_labels_are_unknown_and_the_image_is_marked_or_mirrored() -> None:
    image = np.ones((8, 8, 8), np.float16)
    labels = np.ones((8, 8, 8), np.int32)
    geometry = Geometry(np.array([0.0, 3.5, 3.5]), np.eye(3), np.zeros((3, 5, 5, 5)))
    patch, drawn = sample_patch(image, labels, geometry, (8, 8, 8), margin=0)
    assert (drawn[:3] == -1).all()
    assert (drawn[4:] == 1).all()
    assert beyond(patch)[:3].all()
    assert not beyond(patch)[4:].any()
    mirrored, _ = sample_patch(image, labels, geometry, (8, 8, 8), margin=0, mirrored=True)
    assert not beyond(mirrored).any()
    assert float(mirrored.min()) == pytest.approx(1, abs=1e-5)


def scene() -> Scene:
    image, labels = blobs()
    return Scene(image.astype(np.float32), labels, np.zeros(labels.shape, bool), 0.5)


def test_acquisition_is_seeded_and_finite() -> None:
    always = {name: 1.0 for name in AugmentTable.model_fields if name.endswith("probability")}
    table = AugmentTable(**always)
    for seed in range(10):
        first, second = scene(), scene()
        acquire(first, table, np.random.default_rng(seed))
        acquire(second, table, np.random.default_rng(seed))
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.labels, second.labels)
        assert np.isfinite(first.image).all()
        assert first.image.shape == first.labels.shape == first.fill.shape


@pytest.mark.parametrize("seed", range(5))
def test_contrast_stays_within_the_range_that_the_runtime_clips_to(seed: int) -> None:
    image = torch.linspace(-0.5, 3, 1000).reshape(10, 10, 10)
    changed = change_contrast(
        image, AugmentTable(contrast_probability=1), np.random.default_rng(seed)
    )
    assert torch.isfinite(changed).all()
    assert float(changed.min()) >= DARKEST
    # Brighter stays brighter.
    assert bool((changed.flatten().diff() >= 0).all())
