from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("pydantic", reason="pydantic is not installed")

from cellrt.training.data.accidents import (
    AFTERWARDS,
    AT_SENSOR,
    BEFORE_SENSOR,
    Accident,
    Scene,
    dirt,
    fill,
    play,
)

ALL = [accident for _, accident in (*BEFORE_SENSOR, *AT_SENSOR, *AFTERWARDS)]


def scene() -> Scene:
    labels = np.zeros((20, 24, 28), np.int32)
    labels[4:12, 4:12, 4:12] = 1
    labels[8:18, 12:22, 16:26] = 2
    image = ndimage.gaussian_filter((labels > 0).astype(np.float32), 1)
    return Scene(image, labels, np.zeros(labels.shape, bool), 0.5)


@pytest.mark.parametrize("accident", ALL, ids=lambda accident: accident.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_every_accident_changes_something_and_keeps_shapes_and_types(
    accident: Accident, seed: int
) -> None:
    before, after = scene(), scene()
    accident(after, np.random.default_rng(seed))
    assert after.image.dtype == np.float32
    assert after.image.shape == before.image.shape
    assert np.isfinite(after.image).all()
    assert set(np.unique(after.labels)) <= {0, 1, 2}
    changed = (after.image != before.image).any() or (after.fill != before.fill).any()
    # A slice that is repeated may look as before, and so many hot pixels may be none.
    assert changed or accident.__name__ in (
        "stripes",
        "bad_slices",
        "few_grey_values",
        "hot_pixels",
    )


def test_what_is_no_image_has_no_cells_and_is_the_smaller_part() -> None:
    for seed in range(20):
        played = scene()
        fill(played, np.random.default_rng(seed))
        assert 0 < played.fill.mean() <= 0.75
        assert not played.labels[played.fill].any()


def test_dirt_hides_cells_but_is_none() -> None:
    for seed in range(20):
        before, played = scene(), scene()
        dirt(played, np.random.default_rng(seed))
        taken = (before.labels > 0) & (played.labels == 0)
        assert (played.image[taken] > before.image[taken]).all()


def test_nothing_happens_where_the_share_is_zero() -> None:
    played = scene()
    play(((1.0, dirt), (1.0, fill)), played, np.random.default_rng(0), share=0.0)
    np.testing.assert_array_equal(played.image, scene().image)
    assert not played.fill.any()
