"""Mean shift: the labels of scikit-learn's, on whatever points."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.runtime.decoding.embedding import mean_shift as module
from cellrt.runtime.decoding.embedding.mean_shift import (
    distinct_rows,
    find_centres,
    mean_shift,
    seeds_of,
)
from cellrt.runtime.decoding.embedding.point_tree import build_tree, means_within, nearest

# No two points of a grid of 1/256 are just as far from each other.
BANDWIDTH = 0.5 * (1 + np.sqrt(2) / 1000)


def clustered(count, dimensions, clusters, spread, seed):
    rng = np.random.default_rng(seed)
    middles = rng.uniform(-1, 1, (clusters, dimensions))
    points = middles[rng.integers(clusters, size=count)]
    return (points + spread * rng.standard_normal(points.shape)).astype(np.float32)


def on_the_grid(points):
    """Points as they are rounded, so that scikit-learn gets the same ones."""
    unit = np.float32(BANDWIDTH / 4096)
    return (np.rint(points / unit) * np.float64(BANDWIDTH / 4096)).astype(np.float64)


@pytest.mark.parametrize("seeding", ["means", "centres"])
@settings(max_examples=60)
@given(
    count=st.integers(1, 300),
    dimensions=st.integers(1, 12),
    clusters=st.integers(1, 12),
    spread=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    seed=st.integers(0, 10_000),
)
def test_labels_are_those_of_scikit_learn(count, dimensions, clusters, spread, seed, seeding):
    sklearn = pytest.importorskip("sklearn.cluster", reason="scikit-learn is an extra")
    points = clustered(count, dimensions, clusters, spread, seed)
    exact = on_the_grid(points)
    if seeding == "centres":
        reference = sklearn.MeanShift(bandwidth=BANDWIDTH, bin_seeding=True)
    else:
        seeds = seeds_of(exact.astype(np.float32), BANDWIDTH, "means")
        reference = sklearn.MeanShift(bandwidth=BANDWIDTH, seeds=seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = reference.fit(exact)
        except ValueError:  # no seed has a point within its reach
            labels, _ = mean_shift(points, BANDWIDTH, seeding=seeding)
            assert not labels.any()
            return
    bins = np.rint(exact / BANDWIDTH)
    if seeding == "centres" and len(np.unique(bins, axis=0)) == count:
        return  # it then takes the points as seeds
    labels, centres = mean_shift(points, BANDWIDTH, seeding=seeding)
    # Equal centres come in the order of their last bits.
    apart = np.linalg.norm(centres[:, None] - expected.cluster_centers_[None], axis=2)
    assert len(centres) == len(expected.cluster_centers_)
    partner = apart.argmin(axis=1)
    assert apart.min(axis=1).max() < 1e-4 * BANDWIDTH
    assert len(np.unique(partner)) == len(centres)
    differ = partner[labels] != expected.labels_
    if differ.any():
        own = np.linalg.norm(exact[differ] - centres[labels[differ]], axis=1)
        other = np.linalg.norm(
            exact[differ] - expected.cluster_centers_[expected.labels_[differ]], axis=1
        )
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


def test_a_cluster_that_no_bin_centre_reaches_is_found_all_the_same():
    # Half a bin off along every axis: in 12 dimensions 0.87 from the nearest bin's centre.
    lost = 0.24 + 0.001 * np.random.default_rng(0).standard_normal((50, 12))
    points = np.concatenate([lost, np.full((50, 12), -1.0)]).astype(np.float32)
    assert len(mean_shift(points, 0.5, seeding="centres")[1]) == 1
    labels, centres = mean_shift(points, 0.5)
    assert len(centres) == 2
    assert len(set(labels[:50])) == len(set(labels[50:])) == 1


def test_no_points_are_no_clusters():
    labels, centres = mean_shift(np.empty((0, 12), np.float32), 0.5)
    assert labels.shape == (0,)
    assert centres.shape == (0, 12)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), dimensions=st.integers(1, 13), count=st.integers(1, 3000))
def test_order_of_points_changes_no_label(seed, dimensions, count):
    points = clustered(count, dimensions, 9, 0.08, seed)
    order = np.random.default_rng(seed).permutation(count)
    labels, centres = mean_shift(points, 0.5)
    again, same = mean_shift(points[order], 0.5)
    np.testing.assert_array_equal(centres, same)
    np.testing.assert_array_equal(again, labels[order])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    dimensions=st.integers(1, 13),
    count=st.integers(1, 2000),
    repeated=st.booleans(),
)
def test_the_tree_finds_what_looking_at_every_point_finds(seed, dimensions, count, repeated):
    rng = np.random.default_rng(seed)
    points = np.rint(rng.uniform(-3000, 3000, (count, dimensions))).astype(np.float32)
    if repeated:
        points[rng.random(count) < 0.7] = points[0]
    tree = build_tree(points)
    np.testing.assert_array_equal(tree.points, points[tree.order])
    places = rng.uniform(-3000, 3000, (30, dimensions))
    radius = 1500.0 * np.sqrt(dimensions)
    means, counts = means_within(tree, places, radius)
    distance = np.linalg.norm(places[:, None] - points[None].astype(np.float64), axis=2)
    for place, mean, near, around in zip(places, means, counts, distance, strict=True):
        inside = around <= radius
        assert near == inside.sum()
        np.testing.assert_allclose(mean, points[inside].mean(0, np.float64) if near else place)
    found = nearest(tree, places)
    np.testing.assert_allclose(distance[found, np.arange(count)], distance.min(axis=0))


def test_rows_are_numbered_in_the_order_of_their_first_occurrence():
    rows = np.array([[1, 2], [2, 1], [1, 2], [0, 0], [2, 1]])
    group, first = distinct_rows(rows)
    assert group.tolist() == [0, 1, 0, 2, 1]
    assert first.tolist() == [0, 1, 3]


def test_a_path_is_followed_once(monkeypatch):
    asked = []

    def counting(tree, places, radius):
        asked.append(len(places))
        return means_within(tree, places, radius)

    monkeypatch.setattr(module, "means_within", counting)
    points = clustered(20_000, 12, 5, 0.03, 0)
    assert len(mean_shift(points, 0.5)[1]) == 5
    # All seeds of a cluster see all of its points: one place for each, where nothing moves.
    assert len(asked) == 2
    assert asked[1] <= 10


def test_paths_in_a_haze_become_one_and_lead_where_they_led(monkeypatch):
    """Of points that are no clusters, paths are long and as many as seeds."""
    rng = np.random.default_rng(5)
    haze = np.concatenate(
        [rng.normal(place, 0.35, (6000, 6)) for place in (0.0, 2.0)], dtype=np.float32
    )
    steps = []

    def counted(tree, places, radius):
        steps.append(len(places))
        return means_within(tree, places, radius)

    monkeypatch.setattr(module, "means_within", counted)
    seeds = haze[::8]
    joined = find_centres(haze, 1.0, seeds)
    few, steps[:] = sum(steps), []
    alone = module._climbed(module._tree(haze, 1 / 4096), seeds.astype(float) * 4096, np.inf)
    assert few < sum(steps) / 3
    assert len(joined) == len(alone) == 2
    np.testing.assert_allclose(joined, alone / 4096, atol=0.1)
    assert find_centres(haze, 1.0, seeds, in_haze=False) is None


def test_paths_that_run_in_a_circle_end_at_its_first_place():
    places = np.arange(7, dtype=float)[:, None] * 4096
    following = np.array([2, 3, 3, 4, 2, 6, 6])
    assert module._last_step(places, following).tolist() == [2, 2, 2, 2, 2, 6, 6]
