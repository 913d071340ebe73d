"""Shapes filled by Delaunay simplices, beside shapes filled up to their radius."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellrt.errors import CellrtError
from cellrt.runtime.decoding.base import Outputs, decode_fields
from cellrt.runtime.decoding.star.decoder import STAR
from cellrt.runtime.decoding.star.delaunay import rasterise_delaunay
from cellrt.runtime.decoding.star.directions import FEWER, directions
from cellrt.runtime.decoding.star.harmonics import (
    coefficient_names,
    fit_coefficients,
    radii_along,
    radius_ranges,
)
from cellrt.runtime.decoding.star.parameters import StarParameters
from cellrt.runtime.decoding.star.rasterise import rasterise_harmonics

SHAPE = (31, 33, 35)
CENTRE = np.array([[15.2, 16.1, 17.3]])
CUBES = (1.0, 1.0, 1.0)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def offsets(spacing=CUBES):
    return np.moveaxis(np.indices(SHAPE), 0, -1) * np.asarray(spacing) - CENTRE[0]


def ellipsoid_radii(axes):
    return 1 / np.linalg.norm(directions(FEWER) / axes, axis=1)[None]


def peanut_radii():
    """Long along x with a waist, which no ray from the centre crosses twice."""
    return (3 + 10 * directions(FEWER)[:, 2] ** 2)[None]


@pytest.mark.parametrize("axes", [(11, 11, 11), (7, 10, 13)])
def test_convex_shapes_are_filled_alike(axes):
    drawn = rasterise_delaunay(SHAPE, CUBES, CENTRE, ellipsoid_radii(axes), directions(FEWER))
    truth = ((offsets() / axes) ** 2).sum(axis=-1) <= 1
    assert dice(drawn > 0, truth) > 0.985
    assert not (drawn > 0)[~truth].any()  # the hull of points on a convex surface is inside of it


def test_a_waist_is_filled_that_radii_leave_out():
    coefficients = fit_coefficients(peanut_radii().astype(np.float32), 5).astype(np.float64)
    surface = radii_along(coefficients, FEWER)
    by_hull = rasterise_delaunay(SHAPE, CUBES, CENTRE, surface, directions(FEWER)) > 0
    longest = radius_ranges(coefficients)[:, 1]
    by_radius = rasterise_harmonics(SHAPE, CUBES, CENTRE, coefficients, longest) > 0
    beside_the_waist = tuple(np.rint(CENTRE[0] + (0, 4, 0)).astype(int))
    assert by_hull[beside_the_waist]
    assert not by_radius[beside_the_waist]
    assert by_hull.sum() > 1.1 * by_radius.sum()
    assert np.count_nonzero(by_radius & ~by_hull) < 0.03 * by_radius.sum()


@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_the_decoder_fills_what_it_is_told(kind):
    if kind == "harmonics":
        names = coefficient_names(5)
        values = fit_coefficients(peanut_radii().astype(np.float32) / 2, 5)[0]
    else:
        names = tuple(f"radius_{ray:03d}" for ray in range(36))
        values = 1.5 + 5 * directions(36)[:, 2] ** 2
    fields = np.zeros((37, 20, 20, 20), np.float32)
    fields[0, 10, 10, 10] = 1.0
    fields[1:] = values[:, None, None, None]
    outputs = Outputs(("distance" if kind == "harmonics" else "probability", *names), 1)
    by_radius = STAR.make(StarParameters(), outputs, "")
    by_hull = replace(by_radius, parameters=StarParameters(fill="delaunay"))
    plain, hull = (decode_fields(fields, one, 1) for one in (by_radius, by_hull))
    assert plain.max() == hull.max() == 1
    assert np.count_nonzero(hull) > 1.1 * np.count_nonzero(plain)


def test_filling_and_fitting_exclude_each_other():
    with pytest.raises(CellrtError, match="fit is true and fill is delaunay"):
        StarParameters(fit=True, fill="delaunay")
