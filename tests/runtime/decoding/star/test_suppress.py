"""Suppression: against a brute-force one, and StarDist's own where that is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.runtime.decoding.star import polyhedra
from cellrt.runtime.decoding.star.candidates import Proposals
from cellrt.runtime.decoding.star.directions import directions, fibonacci_lattice
from cellrt.runtime.decoding.star.harmonics import real_spherical_harmonics
from cellrt.runtime.decoding.star.polyhedra import suppress_rays
from cellrt.runtime.decoding.star.rasterise import rasterise_harmonics, rasterise_rays
from cellrt.runtime.decoding.star.suppress import separate_peaks, suppress_harmonics

SHAPE = (30, 36, 40)
ONE = (1.0, 1.0, 1.0)


def bumpy(count, rays, seed, smooth=4):
    """Places and radii of random shapes of 3 to 8 voxels that overlap in all degrees."""
    rng = np.random.default_rng(seed)
    places = rng.integers(9, np.subtract(SHAPE, 9), (count, 3))
    waves = real_spherical_harmonics(rays, 3)[:, 1:]
    bumps = rng.normal(0, 0.1, (count, waves.shape[1])) @ waves.T
    radii = rng.uniform(3, 7, (count, 1)) * np.exp(np.clip(bumps, -0.5, 0.3))
    return places, radii.astype(np.float32)


def greedy(masks, volumes, most):
    """Which masks stay, best first: every one against every kept one."""
    kept = []
    for i, mask in enumerate(masks):
        if all((mask & masks[k]).sum() <= most * min(volumes[i], volumes[k]) for k in kept):
            kept.append(i)
    return kept


def near_the_limit(masks, volumes, most):
    """Whether a pair's overlap is as good as the limit, so that either answer is right."""
    flat = np.array([mask.ravel() for mask in masks], np.float32)
    share = flat @ flat.T / np.minimum.outer(volumes, volumes)
    return (np.abs(share - most) < 1e-4).any()


@settings(max_examples=6)
@given(
    seed=st.integers(0, 999),
    most=st.sampled_from([0.1, 0.3, 0.5]),
    shift=st.sampled_from([0.0, 0.5]),
)
def test_polyhedra_that_stay_are_those_of_brute_force(seed, most, shift):
    rays = directions(36)
    places, radii = bumpy(25, rays, seed)
    masks = [
        rasterise_rays(SHAPE, ONE, (place + shift)[None].astype(float), row[None], rays) > 0
        for place, row in zip(places, radii.astype(float), strict=True)
    ]
    from scipy.spatial import ConvexHull

    faces = ConvexHull(rays).simplices
    corners = rays[faces] * radii[:, faces, None].astype(float)
    volumes = np.abs(np.linalg.det(corners)).sum(axis=1) / 6
    if near_the_limit(masks, volumes, most):
        return
    kept = suppress_rays(places, shift, radii, rays, most)
    assert kept.tolist() == greedy(masks, volumes, most)
    assert 1 < len(kept) < 25


@settings(max_examples=10)
@given(seed=st.integers(0, 999), most=st.sampled_from([0.1, 0.3]))
def test_harmonic_shapes_that_stay_are_those_of_brute_force(seed, most):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(9, np.subtract(SHAPE, 9), (30, 3))
    coefficients = rng.normal(0, 1.0, (30, 16))
    coefficients[:, 0] = rng.uniform(3, 7, 30) * np.sqrt(4 * np.pi)
    reach = (coefficients @ real_spherical_harmonics(directions(5000), 3).T).max(axis=1)
    masks = [
        rasterise_harmonics(SHAPE, ONE, c[None], v[None], r[None]) > 0
        for c, v, r in zip(centres, coefficients, reach, strict=True)
    ]
    volumes = np.array([mask.sum() for mask in masks])
    kept = suppress_harmonics(SHAPE, centres, coefficients, reach, most)
    assert kept.tolist() == greedy(masks, volumes, most)


@given(seed=st.integers(0, 999), distance=st.sampled_from([0.0, 1.0, 2.5, 7.0]))
def test_peaks_are_those_without_a_higher_peak_around(seed, distance):
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 12, (30, 3))
    shapes = Proposals(places, places.astype(float), np.zeros(30), np.zeros((30, 1)))
    kept = []
    for i, place in enumerate(places):
        if all(np.abs(place - places[k]).max() > distance for k in range(i)):
            kept.append(i)
    assert separate_peaks(shapes, distance).tolist() == kept


def test_nothing_stays_of_nothing():
    none = np.zeros((0, 3))
    assert not len(suppress_rays(none.astype(int), 0.0, np.zeros((0, 36)), directions(36), 0.3))
    assert not len(suppress_harmonics(SHAPE, none, np.zeros((0, 36)), np.zeros(0), 0.3))
    empty = Proposals(none.astype(int), none, np.zeros(0), np.zeros((0, 1)))
    assert not len(separate_peaks(empty, 2.0))


def test_however_many_are_settled_at_once_the_same_stay(monkeypatch):
    rays = directions(36)
    places, radii = bumpy(300, rays, 5)
    expected = suppress_rays(places, 0.5, radii, rays, 0.3)
    assert 5 < len(expected) < 300
    for at_once, ahead in ((1, 2), (7, 16), (300, 300)):
        monkeypatch.setattr(polyhedra, "_AT_ONCE", at_once)
        monkeypatch.setattr(polyhedra, "_AHEAD", ahead)
        np.testing.assert_array_equal(suppress_rays(places, 0.5, radii, rays, 0.3), expected)


@pytest.mark.parametrize("most", [0.2, 0.5])
def test_stardist_keeps_the_same_and_draws_the_same_labels(most):
    pytest.importorskip("stardist", reason="stardist is not installed; it is for comparison only")
    from stardist import Rays_GoldenSpiral
    from stardist.geometry import polyhedron_to_label
    from stardist.nms import non_maximum_suppression_3d_inds

    rays = Rays_GoldenSpiral(96)
    vertices = np.asarray(rays.vertices, float)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    places, radii = bumpy(150, vertices, 3)
    scores = np.linspace(1, 0.5, len(places)).astype(np.float32)
    theirs = np.flatnonzero(
        non_maximum_suppression_3d_inds(
            radii, places.astype(np.float32), rays, scores, thresh=most, verbose=False
        )
    )
    ours = suppress_rays(places, 0.0, radii, vertices, most)
    assert len(set(ours) ^ set(theirs)) <= 1
    assert 5 < len(theirs) < 150
    drawn = polyhedron_to_label(
        radii[theirs], places[theirs], rays, SHAPE, prob=scores[theirs], verbose=False
    )
    labels = rasterise_rays(
        SHAPE, ONE, places[theirs].astype(float), radii[theirs].astype(float), vertices, first=True
    )
    for number in range(1, len(theirs) + 1):
        a, b = labels == number, drawn == number
        if b.any():
            assert (a & b).sum() >= 0.98 * (a | b).sum()


def test_the_better_shape_takes_voxels_of_both():
    rays = fibonacci_lattice(64)
    centres, radii = np.array([[15.0, 18, 14], [15.0, 18, 22]]), np.full((2, 64), 7.0)
    shared = np.s_[15, 18, 18]
    for order in ([0, 1], [1, 0]):
        drawn = rasterise_rays(SHAPE, ONE, centres[order], radii, rays, first=True)
        assert drawn[15, 18, 16 if order[0] == 0 else 20] == 1
        assert drawn[shared] == 1
