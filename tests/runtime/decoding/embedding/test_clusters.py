"""Clusters of an image, from fewer points than it has pixels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.embedding import clusters as module
from cellrt.runtime.decoding.embedding.clusters import cluster_pixels
from cellrt.runtime.decoding.embedding.mean_shift import find_centres, mean_shift


def image_of(labels: np.ndarray, noise: float, blur: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    places = rng.uniform(-1.5, 1.5, (int(labels.max()) + 1, 8))
    field = ndimage.gaussian_filter(places[labels], (blur, blur, 0))
    return (field + noise * rng.standard_normal(field.shape)).astype(np.float32)


def cells_of(embedding: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As found, and by mean shift over every pixel."""
    every = np.zeros(inside.shape, np.int32)
    every[inside] = mean_shift(embedding[inside], 0.8)[0] + 1
    return cluster_pixels(embedding, inside, 0.8), every


def squares() -> np.ndarray:
    y, x = np.indices((90, 120))
    labels = 1 + 10 * (y // 12) + x // 12
    labels[(y % 12 > 9) | (x % 12 > 9)] = 0
    return labels


def test_cells_that_are_apart_are_those_of_all_pixels() -> None:
    inside = squares() > 0
    found, every = cells_of(image_of(squares(), 0.02, 0.0), inside)
    scores = evaluate(found, every, thresholds=(0.99,))
    assert scores.at(0.99).average_precision == 1.0
    assert found[~inside].max() == 0
    assert found[inside].min() == 1


def test_blurred_and_noisy_cells_are_found_as_well_as_by_all_pixels() -> None:
    labels = squares()
    found, every = cells_of(image_of(labels, 0.08, 0.7), labels > 0)
    fewer, all_of_them = (evaluate(cells, labels).at(0.5).f1 for cells in (found, every))
    assert all_of_them > 0.9
    assert fewer >= all_of_them - 0.02


def test_a_single_pixel_that_is_no_point_is_a_cluster() -> None:
    inside = np.zeros((7, 9), bool)
    inside[3, 5] = True
    assert cluster_pixels(np.zeros((7, 9, 3), np.float32), inside, 0.5).tolist() == (
        inside.astype(int).tolist()
    )
    assert not cluster_pixels(np.zeros((7, 9, 3), np.float32), inside & False, 0.5).any()


def test_in_a_haze_clusters_are_found_on_fewer_points(monkeypatch):
    """Two halves of an image of which a network says nearly the same everywhere."""
    rng = np.random.default_rng(3)
    embedding = rng.normal(0, 120, (160, 200, 6))
    embedding[:, 100:, 0] += 2000
    seen = []

    def found(points, *arguments, **known):
        seen.append(len(points))
        return find_centres(points, *arguments, **known)

    monkeypatch.setattr(module, "find_centres", found)
    inside = np.ones((160, 200), bool)
    clusters = module.cluster_pixels(embedding.astype(np.int16), inside, 700.0)
    assert seen == [80 * 100, 20 * 25]
    assert len(np.unique(clusters)) == 2
    assert len(np.unique(clusters[:, :100])) == len(np.unique(clusters[:, 100:])) == 1
