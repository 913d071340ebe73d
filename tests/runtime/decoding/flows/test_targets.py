"""Flow targets: against direct formulas, their symmetries, and degenerate label images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellrt.errors import InputError
from cellrt.runtime.decoding.flows.targets import TANH_GAIN, centroid_flow, heat_flow, tanh_flow

FLOWS = [tanh_flow, centroid_flow, heat_flow]
SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)
LABELS = SHAPES.flatmap(lambda shape: arrays.arrays(np.int32, shape, elements=st.integers(0, 3)))


def tanh_by_formula(labels):
    """Run by run, as the definition reads."""
    flow = np.zeros((3, *labels.shape))
    for axis in range(3):
        lines = np.moveaxis(labels, axis, -1)
        out = np.moveaxis(flow[axis], axis, -1)
        for index in np.ndindex(lines.shape[:2]):
            line, a = lines[index], 0
            while a < line.size:
                b = a
                while b + 1 < line.size and line[b + 1] == line[a]:
                    b += 1
                if line[a]:
                    x = np.arange(a, b + 1)
                    out[index][a : b + 1] = np.tanh(
                        TANH_GAIN * ((a + b) / 2 - x) / ((b - a + 1) / 2)
                    )
                a = b + 1
    return flow


def centroid_by_formula(labels, scale):
    flow = np.zeros((3, *labels.shape))
    for label in range(1, labels.max(initial=0) + 1):
        places = np.argwhere(labels == label)
        if len(places):
            flow[:, labels == label] = np.tanh((places.mean(axis=0) - places) / scale).T
    return flow


def ball(radius, pad=2):
    reach = np.arange(-radius - pad, radius + pad + 1)
    z, y, x = np.meshgrid(reach, reach, reach, indexing="ij")
    return (z * z + y * y + x * x <= radius * radius).astype(np.int32)


@settings(max_examples=40)
@given(LABELS)
def test_tanh_flow_is_its_formula(labels):
    np.testing.assert_allclose(tanh_flow(labels), tanh_by_formula(labels), atol=1e-6)


@settings(max_examples=40)
@given(LABELS, st.floats(1, 10))
def test_centroid_flow_is_its_formula(labels, scale):
    np.testing.assert_allclose(
        centroid_flow(labels, scale), centroid_by_formula(labels, scale), atol=1e-5
    )


def test_runs_longer_than_the_table_follow_the_same_formula():
    labels = np.ones((1, 1, 1400), np.int32)
    np.testing.assert_allclose(tanh_flow(labels), tanh_by_formula(labels), atol=1e-6)


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_points_to_the_centre_of_a_ball(flow):
    cell = ball(6)
    field = flow(cell)
    centre = np.array(cell.shape)[:, None] // 2
    places = np.argwhere(cell).T
    inward = centre - places
    vectors = field[:, cell > 0]
    away = np.linalg.norm(inward, axis=0) > 1
    cosine = (vectors * inward).sum(axis=0)[away] / (
        np.linalg.norm(vectors, axis=0) * np.linalg.norm(inward, axis=0)
    )[away]
    assert cosine.min() > 0.55
    assert np.median(cosine) > 0.95
    assert not field[:, cell == 0].any()
    assert np.abs(field).max() <= 1


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_of_the_labels_flips_the_flow(flow, axis):
    # A solid whose medoid is unique, as the heat flow's source has no symmetric choice otherwise.
    cell = np.zeros((9, 10, 12), np.int32)
    cell[1:6, 1:8, 1:10] = 1
    cell[6:8, 3:6, 4:7] = 1
    expected = np.flip(flow(cell), axis + 1).copy()
    expected[axis] *= -1
    np.testing.assert_allclose(flow(np.flip(cell, axis)), expected, atol=1e-5)


@pytest.mark.parametrize("flow", FLOWS)
def test_values_of_labels_do_not_matter(flow):
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 5, (2, 3, 3)), np.ones((4, 4, 4), int))
    names = np.array([0, 70_000_001, 5, 900, 2])
    np.testing.assert_array_equal(flow(names[labels]), flow(labels))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("shape", [(0, 3, 3), (1, 1, 1), (1, 5, 6), (4, 1, 1)])
@pytest.mark.parametrize("value", [-1, 0, 1])
def test_empty_full_and_thin_images(flow, shape, value):
    field = flow(np.full(shape, value, np.int32))
    assert field.shape == (3, *shape)
    assert field.dtype == np.float32
    assert np.isfinite(field).all()
    if value < 1:
        assert not field.any()


def test_heat_leads_around_the_corner_of_a_bent_cell():
    cell = np.zeros((5, 14, 14), np.int32)
    cell[1:4, 1:13, 1:4] = 1
    cell[1:4, 10:13, 1:13] = 1
    field = heat_flow(cell)
    # At the end of one leg the only way out is along that leg.
    assert field[1, 2, 1, 2] > 0.9
    assert field[2, 2, 11, 12] < -0.9
    lengths = np.linalg.norm(field, axis=0)[cell > 0]
    assert np.all((np.abs(lengths - 1) < 1e-3) | (lengths == 0))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("labels", [np.zeros((3, 3), np.int32), np.zeros((2, 2, 2))])
def test_other_than_three_dimensional_integers_are_refused(flow, labels):
    with pytest.raises(InputError, match="three-dimensional integer"):
        flow(labels)
