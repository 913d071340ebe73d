from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")

from cellrt.training.data.augment import (  # noqa: E402
    Geometry,
    acquire,
    draw_geometry,
    sample_patch,
    soft_clip,
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


def test_beyond_the_stack_labels_are_unknown_and_the_image_zero_or_mirrored() -> None:
    image = np.ones((8, 8, 8), np.float16)
    labels = np.ones((8, 8, 8), np.int32)
    geometry = Geometry(np.array([0.0, 3.5, 3.5]), np.eye(3), np.zeros((3, 5, 5, 5)))
    patch, drawn = sample_patch(image, labels, geometry, (8, 8, 8), margin=0)
    assert (drawn[:3] == -1).all()
    assert (drawn[4:] == 1).all()
    assert float(patch[:3].abs().max()) == 0
    mirrored, _ = sample_patch(image, labels, geometry, (8, 8, 8), margin=0, mirrored=True)
    assert float(mirrored.min()) == 1


def test_acquisition_is_seeded_finite_and_never_leaves_the_softly_clipped_range() -> None:
    image = torch.from_numpy(np.random.default_rng(1).random((16, 16, 16), np.float32))
    always = {name: 1.0 for name in AugmentTable.model_fields if name.endswith("probability")}
    table = AugmentTable(**always)
    for seed in range(10):
        first = acquire(image, table, np.random.default_rng(seed))
        second = acquire(image, table, np.random.default_rng(seed))
        assert torch.equal(first, second)
        assert torch.isfinite(first).all()
        assert first.shape == image.shape
        assert float(first.min()) >= -0.2
    assert float(image.max()) <= 1  # the input is not changed in place


def test_soft_clip_is_the_runtimes() -> None:
    from cellrt.runtime.grid.intensity import IntensityRange, normalise

    values = np.linspace(-2, 12, 200).astype(np.float32)
    ours = soft_clip(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(ours, normalise(values, IntensityRange(0, 1)), atol=1e-6)
