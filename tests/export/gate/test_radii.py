"""The parity gate of networks that predict shapes: errors in voxels of radius, inside of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

from cellrt.export.gate.compare import GateError, compare, refuse_failures
from cellrt.export.gate.radii import radius_errors
from cellrt.export.gate.tolerances import FP16, FP32, TOLERANCES
from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.star.harmonics import coefficient_names, real_spherical_harmonics

HARMONICS = ("distance", *coefficient_names(5))
RAYS = ("probability", *(f"radius_{i}" for i in range(96)))


def ball(channels, radius=8.0, inside=1.0):
    fields = np.zeros((1, len(channels), 2, 4, 4), np.float32)
    fields[:, 0, :, :2] = inside
    fields[:, 1:] = radius
    if channels is HARMONICS:
        fields[:, 1], fields[:, 2:] = radius * math.sqrt(4 * math.pi), 0.0
    return fields


def judge(given, expected, tolerance, channels):
    labels = np.ones((4, 8, 8), np.int32)
    return compare(
        [("engine", lambda tile: given, tolerance)],
        [np.zeros((1, 1, 4, 8, 8), np.float32)],
        [expected],
        lambda fields: labels,
        channels,
    )


@pytest.mark.parametrize("channels", [HARMONICS, RAYS], ids=["harmonics", "rays"])
def test_a_ball_that_is_larger_by_one_voxel_is_off_by_one_voxel(channels):
    errors = radius_errors(channels, ball(channels, 9.0)[0], ball(channels, 8.0)[0])
    np.testing.assert_allclose(errors, 1.0, rtol=1e-5)
    assert errors.shape == (16,)  # voxels inside


def test_errors_of_harmonics_are_those_of_the_radii_they_draw():
    rng = np.random.default_rng(0)
    given, expected = ball(HARMONICS), ball(HARMONICS)
    given[0, 1:] += rng.normal(0, 0.5, given[0, 1:].shape)
    errors = radius_errors(HARMONICS, given[0], expected[0])
    difference = (given - expected)[0, 1:][:, expected[0, 0] > 0.5]
    drawn = real_spherical_harmonics(directions(5000), 5) @ difference
    np.testing.assert_allclose(errors, np.sqrt(np.mean(drawn**2, axis=0)), rtol=0.02)


@pytest.mark.parametrize("channels", [HARMONICS, RAYS], ids=["harmonics", "rays"])
def test_what_is_said_of_shapes_outside_of_cells_does_not_count(channels):
    given, expected = ball(channels), ball(channels)
    given[:, 1:, :, 2:] += 100.0
    (row,) = judge(given, expected, FP32, channels)
    assert row.radius_error == 0.0
    assert row.max_error == 0.0
    assert not row.problems


@pytest.mark.parametrize("channels", [HARMONICS, RAYS], ids=["harmonics", "rays"])
@pytest.mark.parametrize("tolerance", [FP32, FP16, *TOLERANCES.values()])
def test_shapes_are_judged_in_voxels_of_radius(channels, tolerance):
    for factor, passes in ((0.9, True), (1.1, False)):
        given = ball(channels, 8.0 + factor * tolerance.radius)
        rows = judge(given, ball(channels), tolerance, channels)
        assert rows[0].radius_error == pytest.approx(factor * tolerance.radius, rel=0.01)
        if passes:
            refuse_failures(rows, "a graph")
        else:
            with pytest.raises(GateError, match="voxels of radius"):
                refuse_failures(rows, "a graph")


def test_a_shape_that_is_not_a_number_does_not_pass():
    given = ball(RAYS)
    given[0, 5, 0, 0, 0] = np.nan
    (row,) = judge(given, ball(RAYS), FP16, RAYS)
    assert any("voxels of radius" in problem for problem in row.problems)
    assert any("NaN" in problem for problem in row.problems)


def test_the_map_is_judged_as_before():
    given = ball(HARMONICS, inside=0.9)
    (row,) = judge(given, ball(HARMONICS), FP16, HARMONICS)
    assert row.max_error == pytest.approx(0.1)
    assert any("voxels differ" in problem for problem in row.problems)
