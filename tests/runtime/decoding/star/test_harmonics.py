"""Spherical harmonics, against scipy, and coefficients that come of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from cellrt.errors import UsageError
from cellrt.runtime.decoding.star.directions import shipped_directions
from cellrt.runtime.decoding.star.harmonics import (
    check_order,
    coefficient_names,
    degrees,
    fit_coefficients,
    half_widths,
    power_per_degree,
    radius_ranges,
    real_spherical_harmonics,
)


def test_harmonics_are_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    phi = np.arange(24) * 2 * np.pi / 24
    sine = np.sqrt(1 - nodes**2)[:, None]
    directions = np.stack(
        [nodes[:, None] + 0 * phi, sine * np.sin(phi), sine * np.cos(phi)], axis=-1
    )
    values = real_spherical_harmonics(directions, 5).reshape(-1, 36)
    area = np.repeat(weights, 24) * (2 * np.pi / 24)
    assert (values * area[:, None]).T @ values == pytest.approx(np.eye(36), abs=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5, 11])
def test_harmonics_agree_with_scipy(degree):
    rng = np.random.default_rng(degree)
    directions = rng.standard_normal((50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    theta = np.arccos(directions[:, 0])
    phi = np.arctan2(directions[:, 1], directions[:, 2])
    ours = real_spherical_harmonics(directions, degree)
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("scipy is older than 1.15, which renamed the harmonics")
    for m in range(-degree, degree + 1):
        their = special.sph_harm_y(degree, abs(m), theta, phi)
        # scipy's carry the sign (-1)^m of Condon and Shortley.
        part = {-1: their.imag, 0: their.real, 1: their.real}[int(np.sign(m))]
        expected = part * (1 if m == 0 else np.sqrt(2) * (-1) ** m)
        assert ours[:, degree * (degree + 1) + m] == pytest.approx(expected, abs=1e-9)


def test_radii_that_are_harmonics_come_back_as_their_coefficients():
    rng = np.random.default_rng(3)
    coefficients = np.concatenate([[30.0], rng.normal(0, 1, 35)])
    radii = real_spherical_harmonics(shipped_directions(), 5) @ coefficients
    (found,) = fit_coefficients(radii[None].astype(np.float32), 5)
    # Smoothing takes a little of the highest degree.
    assert found == pytest.approx(coefficients, rel=0.02, abs=1e-2)


@pytest.mark.parametrize("order", [2, 5, 11])
@pytest.mark.parametrize("length", [1.0, 2.0, 4.0])
def test_the_fit_is_that_of_weighted_regularised_least_squares(order, length):
    points = shipped_directions()
    radii = 8 / np.sqrt(((points / (1.0, 1.2, length)) ** 2).sum(axis=1))
    harmonics = real_spherical_harmonics(points, order)
    degree = degrees(order)
    weighted = harmonics * (radii**2 / (radii**2).mean())[:, None]
    normal = weighted.T @ harmonics + 0.006 * np.diag(degree**2 * (degree + 1) ** 2)
    expected = np.linalg.solve(normal, weighted.T @ radii)
    (found,) = fit_coefficients(radii[None].astype(np.float32), order)
    assert found == pytest.approx(expected, abs=2e-3 * expected[0])


@pytest.mark.parametrize("order", [1, 5, 11])
def test_power_per_degree_is_the_mean_square_of_that_degree(order):
    coefficients = np.random.default_rng(order).normal(size=(4, (order + 1) ** 2))
    power = power_per_degree(coefficients)
    harmonics = real_spherical_harmonics(shipped_directions(), order)
    for degree in range(order + 1):
        of_degree = slice(degree**2, (degree + 1) ** 2)
        radii = coefficients[:, of_degree] @ harmonics[:, of_degree].T
        assert power[:, degree] == pytest.approx(4 * np.pi * (radii**2).mean(axis=1), rel=1e-3)


@pytest.mark.parametrize("order", [-1, 0, 12, 100])
def test_an_order_that_there_is_not_is_refused(order):
    with pytest.raises(UsageError, match=rf"order is {order}; expected 1 to 11"):
        check_order(order)


@pytest.mark.parametrize("order", [1, 5, 11])
def test_names_are_those_of_degrees_and_orders(order):
    names = [name.split("_") for name in coefficient_names(order)]
    assert [int(degree) for _, degree, _ in names] == degrees(order).tolist()
    place = [int(degree) * (int(degree) + 1) + int(m) for _, degree, m in names]
    assert place == list(range((order + 1) ** 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shortest_and_longest_radius_of_many_shapes(dtype):
    rng = np.random.default_rng(0)
    coefficients = rng.normal(0, 0.5, (1030, 9)).astype(dtype)
    coefficients[:, 0] += 30
    radii = coefficients @ real_spherical_harmonics(shipped_directions(), 2).T
    expected = np.stack([radii.min(axis=1), radii.max(axis=1)], axis=1)
    assert radius_ranges(coefficients) == pytest.approx(expected, rel=1e-5)
    assert radius_ranges(coefficients[:0]).shape == (0, 2)


def test_half_of_what_is_narrowest_is_the_same_about_any_centre():
    directions = shipped_directions()
    axes = np.array([4.0, 6.0, 9.0])
    radii = []
    for offset in ([0, 0, 0], [1.5, 0, 0], [1, 0.5, -2]):
        # Where a ray from the offset crosses the ellipsoid.
        along, start = directions / axes, np.asarray(offset) / axes
        a, b, c = (along**2).sum(axis=1), along @ start, start @ start - 1
        radii.append((np.sqrt(b * b - a * c) - b) / a)
    coefficients = fit_coefficients(np.asarray(radii, np.float32), 7)
    assert radius_ranges(coefficients)[1, 0] < 2.8
    np.testing.assert_allclose(half_widths(coefficients), 4.0, rtol=0.06)
