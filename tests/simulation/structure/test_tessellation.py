"""Power diagrams against brute force, relaxation, warps and outlines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.errors import UsageError
from cellrt.simulation.parameters.membranes import OUTLINES, MembraneParameters
from cellrt.simulation.structure.shapes import random_rotation
from cellrt.simulation.structure.tessellation import relax, smooth_warp, tessellate
from cellrt.simulation.structure.tissue import draw_tissue, outline_distance


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 40), st.tuples(*[st.integers(1, 21)] * 3))
def test_blocks_agree_with_brute_force(seed, count, shape):
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(-4, 25, (count, 3))
    weights = rng.uniform(-10, 10, count)
    rotation = random_rotation(rng)
    metric = rotation @ np.diag([0.5, 1.0, 1.7]) @ rotation.T
    warp = smooth_warp(shape, 1.5, 4.0, rng)
    labels, distances = tessellate(shape, seeds, weights, metric, warp)

    points = np.stack(np.indices(shape), axis=-1).reshape(-1, 3) + warp.reshape(3, -1).T
    away = ((points @ metric.T)[:, None] - (seeds @ metric.T)[None]) ** 2
    power = away.sum(axis=2) - weights
    chosen = labels.ravel() - 1
    assert power[np.arange(len(chosen)), chosen] == pytest.approx(power.min(axis=1), abs=1e-6)
    own = np.sqrt(away.sum(axis=2)[np.arange(len(chosen)), chosen])
    assert distances.ravel() == pytest.approx(own, abs=1e-3)


def test_relaxation_makes_cells_alike():
    rng = np.random.default_rng(1)
    samples = rng.uniform(0, 60, (8000, 3))
    start = samples[:200]

    def spread(seeds):
        warp = np.zeros((3, 60, 60, 60), np.float32)
        labels, _ = tessellate((60, 60, 60), seeds, np.zeros(200), np.eye(3), warp)
        sizes = np.bincount(labels.ravel(), minlength=201)[1:]
        return sizes.std() / sizes.mean()

    assert np.array_equal(relax(start, samples, np.eye(3), 0), start)
    assert spread(relax(start, samples, np.eye(3), 5)) < 0.6 * spread(start)


def test_warp_has_the_asked_amplitude():
    warp = smooth_warp((50, 50, 50), 2.5, 5.0, np.random.default_rng(2))
    assert warp.shape == (3, 50, 50, 50)
    assert warp.std() == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("outline", OUTLINES)
def test_outlines_are_signed_distances(outline):
    rng = np.random.default_rng(3)
    distance = outline_distance(outline, np.array([60.0, 60.0, 60.0]), 12.0, rng)
    points = rng.uniform(-20, 80, (3000, 3))
    values = distance(points)
    inside = (values < 0).mean()
    assert inside == 1 if outline == "none" else 0.01 < inside < 0.99
    # No faster than distance (ellipsoids are stretched by at most e^0.8 here).
    step = np.abs(distance(points + np.array([0, 0, 0.1])) - values)
    assert (step <= 0.1 * 2.3).all()


@pytest.mark.parametrize("outline", OUTLINES)
def test_tissue_is_dense_inside_its_outline(outline):
    parameters = MembraneParameters(outline=outline)
    labels = draw_tissue((48, 48, 48), 14.0, parameters, np.random.default_rng(4))
    assert labels.max() > 3
    background = (labels == 0).mean()
    assert background == 0 if outline == "none" else background > 0.01


def test_gaps_are_background_inside_the_tissue():
    parameters = MembraneParameters(gap_share=0.3)
    labels = draw_tissue((48, 48, 48), 12.0, parameters, np.random.default_rng(5))
    assert 0.1 < (labels == 0).mean() < 0.5


def test_unknown_outline_is_refused():
    with pytest.raises(UsageError, match="choose from none"):
        outline_distance("cube", np.ones(3), 5.0, np.random.default_rng(0))
