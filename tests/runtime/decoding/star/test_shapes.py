"""Cells of label images become shapes and cells again: against geometry and analytic shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cellrt.errors import ResourceError, UsageError
from cellrt.runtime.decoding.star.directions import fibonacci_lattice, shipped_directions
from cellrt.runtime.decoding.star.harmonics import (
    fit_coefficients,
    power_per_degree,
    real_spherical_harmonics,
)
from cellrt.runtime.decoding.star.radii import measure_radii
from cellrt.runtime.decoding.star.rasterise import rasterise_rays
from cellrt.runtime.decoding.star.shapes import decode, encode
from cellrt.simulation.structure.shapes import random_rotation

SPHERE = math.sqrt(4 * math.pi)


def ellipsoid(shape, centre, half_axes, spacing=(1.0, 1.0, 1.0), rotation=None):
    """Mask of an ellipsoid; lengths in the unit of the spacing."""
    grid = np.moveaxis(np.indices(shape), 0, -1) * np.asarray(spacing) - np.asarray(centre)
    turned = grid if rotation is None else grid @ rotation
    return ((turned / np.asarray(half_axes)) ** 2).sum(axis=-1) <= 1


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("radius", [6.3, 10.0, 18.7])
@pytest.mark.parametrize("order", [1, 5, 11])
def test_a_sphere_is_its_mean_radius(radius, order):
    size = 2 * int(radius) + 6
    ball = ellipsoid((size,) * 3, np.full(3, size / 2 + 0.31), np.full(3, radius))
    shapes = encode(ball, order=order)
    assert shapes.coefficients.shape == (1, (order + 1) ** 2)
    assert shapes.coefficients[0, 0] == pytest.approx(radius * SPHERE, rel=0.005)
    assert np.abs(shapes.coefficients[0, 1:]).max() < 0.01 * radius * SPHERE
    assert not shapes.flags.any()
    assert shapes.misplaced_share[0] < 0.01


@pytest.mark.parametrize("spacing", [(1.75, 0.8, 0.8), (0.5, 0.2, 0.2), (0.2, 0.5, 0.3)])
def test_a_sphere_in_micrometres_is_one_in_any_voxels(spacing):
    radius = 20 * min(spacing)
    shape = tuple(int(2 * radius / step) + 5 for step in spacing)
    centre = np.asarray(shape) * spacing / 2
    shapes = encode(ellipsoid(shape, centre, np.full(3, radius), spacing), spacing)
    assert shapes.unit == "um"
    assert shapes.centres[0] == pytest.approx(centre, abs=0.02 * radius)
    assert shapes.coefficients[0, 0] == pytest.approx(radius * SPHERE, rel=0.005)
    assert np.abs(shapes.coefficients[0, 4:]).max() < 0.02 * radius * SPHERE


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.75, 0.8, 0.5)])
def test_radii_of_a_box_are_exact(spacing):
    labels = np.zeros((20, 24, 28), np.int32)
    labels[3:14, 5:19, 2:25] = 1
    rays = np.concatenate([shipped_directions(), np.eye(3), -np.eye(3)])
    found = measure_radii(labels, 1, rays, spacing)
    assert found.centres[0] == pytest.approx([8.0, 11.5, 13.0])
    halves = np.array([11, 14, 23]) * spacing / 2
    with np.errstate(divide="ignore"):
        expected = (halves / np.abs(rays)).min(axis=1)
    assert found.values[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("half_axes", [(12, 16, 20), (9, 9, 22), (24, 24, 8)])
def test_an_ellipsoid_comes_back(half_axes):
    rotation = random_rotation(np.random.default_rng(1))
    cell = ellipsoid((52, 52, 52), (26, 26, 26), half_axes, rotation=rotation)
    assert dice(decode(encode(cell, order=11)) > 0, cell) > 0.98


def test_translated_copies_have_the_same_shape():
    cell = ellipsoid(
        (20, 24, 28), (10, 12, 14), (7, 9, 11), rotation=random_rotation(np.random.default_rng(2))
    )
    labels = np.zeros((60, 70, 80), np.uint16)
    places = [(0, 0, 0), (31, 5, 40), (35, 41, 7)]
    for label, (z, y, x) in enumerate(places, start=7):
        labels[z : z + 20, y : y + 24, x : x + 28][cell] = label
    shapes = encode(labels, (0.9, 0.4, 0.4))
    assert shapes.ids.tolist() == [7, 8, 9]
    assert np.array_equal(shapes.coefficients[1], shapes.coefficients[0])
    assert np.array_equal(shapes.coefficients[2], shapes.coefficients[0])
    steps = (shapes.centres[1:] - shapes.centres[0]) / (0.9, 0.4, 0.4)
    assert steps == pytest.approx(np.asarray(places[1:], float), abs=1e-9)


def bumpy(rotation, size=72, radius=24.0):
    """A shape with known power in degrees 2 to 5, turned."""
    rng = np.random.default_rng(5)
    coefficients = np.zeros(36)
    coefficients[0] = radius * SPHERE
    coefficients[4:] = rng.normal(0, 0.06 * radius, 32)
    grid = np.moveaxis(np.indices((size,) * 3), 0, -1) - size / 2.0
    distance = np.linalg.norm(grid, axis=-1)
    unit = grid / np.maximum(distance, 1e-9)[..., None]
    return distance <= real_spherical_harmonics(unit @ rotation, 5) @ coefficients


def test_power_per_degree_is_the_same_after_a_rotation():
    still = encode(bumpy(np.eye(3))).power[0]
    turned = encode(bumpy(random_rotation(np.random.default_rng(8)))).power[0]
    # Degree 1 is where the centre is: as good as nothing.
    assert turned[1] < 1e-4 * turned[0]
    for degree in (0, 2, 3, 4, 5):
        assert turned[degree] == pytest.approx(still[degree], rel=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_power_of_a_nucleus_is_that_of_its_surface_however_it_lies(seed):
    rng = np.random.default_rng(seed)
    half_axes, rotation = np.array([10.0, 14.0, 20.0]), random_rotation(rng)
    cell = ellipsoid((50,) * 3, 25 + rng.uniform(-0.5, 0.5, 3), half_axes, rotation=rotation)
    directions = shipped_directions() @ rotation
    radii = 1 / np.linalg.norm(directions / half_axes, axis=1)
    surface = power_per_degree(fit_coefficients(radii[None].astype(np.float32), 5))[0]
    power = encode(cell).power[0]
    # Of degree 4, which is a five hundredth of degree 0, the steps of voxels are a larger part.
    for degree, close in ((0, 0.01), (2, 0.02), (4, 0.1)):
        assert power[degree] == pytest.approx(surface[degree], rel=close)


def test_coefficients_turn():
    first = encode(bumpy(np.eye(3))).coefficients[0]
    second = encode(bumpy(random_rotation(np.random.default_rng(8)))).coefficients[0]
    assert np.abs(first - second).max() > 0.05 * first[0] / 10


def test_every_oddity_has_its_flag_and_encodes_without_error():
    labels = np.zeros((40, 40, 80), np.int32)
    labels[5:16, 5:16, 5:16] = 1  # whole
    labels[5:16, 20:31, 5:16] = 2
    labels[9:12, 24:27, 9:12] = 0  # a hole
    labels[25:30, 5:10, 5:10] = 3
    labels[25:30, 5:10, 20:25] = 3  # two parts
    labels[30, 30, 30] = 4  # a single voxel
    labels[30:40, 20:26, 40:50] = 5  # cut by the border
    labels[5:8, 5:35, 40:70] = 6
    labels[5:8, 8:32, 43:67] = 0  # a frame around its centroid
    labels[20, 20, 20] = labels[21, 21, 21] = 7  # touch by a corner
    shapes = encode(labels)
    flags = {
        name: shapes.ids[shapes.flagged(name)].tolist()
        for name in ("border", "hole", "split", "single_voxel", "centre_moved")
    }
    assert flags == {
        "border": [5],
        "hole": [2],
        "split": [3],
        "single_voxel": [4],
        "centre_moved": [3, 6],
    }
    assert np.isfinite(shapes.coefficients).all()
    drawn = decode(shapes)
    assert set(np.unique(drawn)) >= {0, 1, 2, 4, 5}
    assert drawn[10, 25, 10] == 2, "a hole is filled"
    assert drawn[30, 30, 30] == 4
    assert (drawn == 4).sum() == 1


def test_convex_cells_lose_nothing_and_others_say_how_much():
    labels = np.zeros((30, 60, 60), np.int32)
    labels[5:25, 5:25, 5:25] = 1
    # A horseshoe, whose ends are behind the gap.
    labels[10:20, 30:36, 5:45] = labels[10:20, 50:56, 5:45] = labels[10:20, 36:50, 5:11] = 2
    shapes = encode(labels)
    assert shapes.misplaced_share[0] < 1e-6
    # What is on the wrong side of the radii, voxel by voxel.
    found = measure_radii(labels, 2, shipped_directions(), (1.0, 1.0, 1.0))
    away = np.argwhere(np.ones_like(labels)) - found.centres[1]
    distance = np.linalg.norm(away, axis=1)
    _, nearest = cKDTree(shipped_directions()).query(away / np.maximum(distance, 1e-9)[:, None])
    inside = distance <= found.values[1][nearest]
    cell = (labels == 2).ravel()
    assert shapes.misplaced_share[1] == pytest.approx((inside != cell).sum() / cell.sum(), abs=0.02)
    assert shapes.misplaced_share[1] > 0.1


def test_touching_cells_share_voxels_by_the_middle_and_in_no_order():
    labels = np.zeros((30, 30, 50), np.int32)
    labels[5:25, 5:25, 5:25], labels[5:25, 5:25, 25:45] = 1, 2
    shapes = encode(labels, order=3)
    drawn = decode(shapes)
    assert dice(drawn == 1, labels == 1) > 0.8
    assert (drawn[..., :24] != 2).all()
    assert (drawn[..., 26:] != 1).all()
    turned = encode(np.where(labels > 0, 3 - labels, 0), order=3)
    assert (decode(turned) == np.where(drawn > 0, 3 - drawn, 0)).mean() > 0.9999


def test_ids_are_kept_however_large():
    labels = np.zeros((12, 12, 30), np.uint32)
    labels[2:10, 2:10, 2:10], labels[2:10, 2:10, 12:20] = 5, 4_000_000_000
    shapes = encode(labels)
    assert shapes.ids.tolist() == [5, 4_000_000_000]
    assert np.unique(decode(shapes)).tolist() == [0, 5, 4_000_000_000]


def test_no_cells_are_no_shapes():
    shapes = encode(np.zeros((4, 5, 6), np.uint8))
    assert len(shapes) == 0
    assert shapes.coefficients.shape == (0, 36)
    assert not decode(shapes).any()


def test_centres_may_be_outside_of_the_image():
    from dataclasses import replace

    ball = ellipsoid((30, 30, 30), (15, 15, 15), (10, 10, 10))
    shapes = encode(ball)
    cut = decode(replace(shapes, centres=shapes.centres - (18, 0, 0)))
    assert np.array_equal(cut[:12], decode(shapes)[18:])
    away = decode(replace(shapes, centres=shapes.centres - (100, 0, 0)))
    assert not away.any()


@pytest.mark.parametrize("order", [0, 12])
def test_an_order_out_of_range_is_refused(order):
    with pytest.raises(UsageError, match="expected 1 to 11"):
        encode(np.ones((3, 3, 3), int), order=order)


def test_an_image_larger_than_memory_is_refused():
    from dataclasses import replace

    shapes = replace(encode(np.ones((3, 3, 3), int)), image_shape=(100_000, 100_000, 100_000))
    with pytest.raises(ResourceError, match="GB of memory"):
        decode(shapes)


@pytest.mark.parametrize(("rays", "least"), [(32, 0.85), (256, 0.97)])
def test_polyhedra_of_rays_fill_what_they_were_measured_on(rays, least):
    cell = ellipsoid((44, 44, 44), (21.6, 22.2, 21.9), (12, 16, 19)).astype(np.int32)
    directions = fibonacci_lattice(rays)
    found = measure_radii(cell, 1, directions, (1.0, 1.0, 1.0))
    drawn = rasterise_rays(
        cell.shape, (1.0, 1.0, 1.0), found.centres, found.values.astype(np.float64), directions
    )
    assert dice(drawn > 0, cell > 0) > least


def test_a_polyhedron_is_that_of_scipy():
    from scipy.spatial import Delaunay

    rng = np.random.default_rng(4)
    directions = fibonacci_lattice(24)
    radii = rng.uniform(8, 9, (1, 24))  # nearly a sphere, so that it is its convex hull
    centre = np.array([[12.3, 11.8, 12.1]])
    drawn = rasterise_rays((24, 24, 24), (1.0, 1.0, 1.0), centre, radii, directions) > 0
    corners = centre + radii[0][:, None] * directions
    inside = Delaunay(corners).find_simplex(np.argwhere(np.ones((24, 24, 24))).astype(float)) >= 0
    assert dice(drawn, inside.reshape(drawn.shape)) > 0.98
