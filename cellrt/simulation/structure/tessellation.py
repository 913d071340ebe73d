"""Dense tissue: relaxed power diagrams with elongated cells and curved walls."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellrt.compiled import compiled
from cellrt.simulation.random_fields import smooth_noise

_BLOCK = 8


def tessellate(
    shape: tuple[int, int, int],
    seeds: NDArray[np.float64],
    weights: NDArray[np.float64],
    metric: NDArray[np.float64],
    warp: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Label every voxel with 1 + index of its cell in a warped power diagram.

    A voxel at x belongs to the seed s with the smallest
    ``|metric @ (x + warp(x) - s)|² - weight``.

    Parameters
    ----------
    shape : tuple of int
        Volume (z, y, x).
    seeds : ndarray of float64, (n, 3)
        Positions in voxels; they may lie outside.
    weights : ndarray of float64, (n,)
        Squared voxels of the metric's space; larger cells have larger weights.
    metric : ndarray of float64, (3, 3)
        Linear map that makes cells round (identity for cells without direction).
    warp : ndarray of float32, (3, z, y, x)
        Displacement in voxels that curves the walls.

    Returns
    -------
    labels : ndarray of int32, (z, y, x)
    distances : ndarray of float32, (z, y, x)
        Distance to the cell's own seed in the metric's space.
    """
    labels = np.zeros(shape, np.int32)
    distances = np.zeros(shape, np.float32)
    _tessellate(labels, distances, seeds @ metric.T, weights, np.ascontiguousarray(metric), warp)
    return labels, distances


@compiled
def _tessellate(
    labels: NDArray[np.int32],
    distances: NDArray[np.float32],
    seeds: NDArray[np.float64],
    weights: NDArray[np.float64],
    metric: NDArray[np.float64],
    warp: NDArray[np.float32],
) -> None:
    n = seeds.shape[0]
    power = np.empty(n)
    candidates = np.empty(n, np.int64)
    points = np.empty((_BLOCK * _BLOCK * _BLOCK, 3))
    for bz in range(0, labels.shape[0], _BLOCK):
        ez = min(bz + _BLOCK, labels.shape[0])
        for by in range(0, labels.shape[1], _BLOCK):
            ey = min(by + _BLOCK, labels.shape[1])
            for bx in range(0, labels.shape[2], _BLOCK):
                ex = min(bx + _BLOCK, labels.shape[2])
                count = 0
                middle = np.zeros(3)
                for z in range(bz, ez):
                    for y in range(by, ey):
                        for x in range(bx, ex):
                            qz = z + warp[0, z, y, x]
                            qy = y + warp[1, z, y, x]
                            qx = x + warp[2, z, y, x]
                            for k in range(3):
                                p = metric[k, 0] * qz + metric[k, 1] * qy + metric[k, 2] * qx
                                points[count, k] = p
                                middle[k] += p
                            count += 1
                middle /= count
                reach = 0.0
                for c in range(count):
                    square = 0.0
                    for k in range(3):
                        square += (points[c, k] - middle[k]) ** 2
                    reach = max(reach, square)
                reach = math.sqrt(reach)
                # A seed can win somewhere in the block only if its power there
                # can drop below the most that the best seed can reach.
                bound = 1e300
                for i in range(n):
                    square = 0.0
                    for k in range(3):
                        square += (seeds[i, k] - middle[k]) ** 2
                    power[i] = square
                    most = (math.sqrt(square) + reach) ** 2 - weights[i]
                    bound = min(bound, most)
                used = 0
                for i in range(n):
                    least = max(0.0, math.sqrt(power[i]) - reach)
                    if least * least - weights[i] <= bound:
                        candidates[used] = i
                        used += 1
                c = 0
                for z in range(bz, ez):
                    for y in range(by, ey):
                        for x in range(bx, ex):
                            best = 1e300
                            winner = 0
                            for j in range(used):
                                i = candidates[j]
                                d0 = points[c, 0] - seeds[i, 0]
                                d1 = points[c, 1] - seeds[i, 1]
                                d2 = points[c, 2] - seeds[i, 2]
                                here = d0 * d0 + d1 * d1 + d2 * d2 - weights[i]
                                if here < best:
                                    best = here
                                    winner = i
                            labels[z, y, x] = winner + 1
                            distances[z, y, x] = math.sqrt(max(0.0, best + weights[winner]))
                            c += 1


def relax(
    seeds: NDArray[np.float64],
    samples: NDArray[np.float64],
    metric: NDArray[np.float64],
    rounds: int,
) -> NDArray[np.float64]:
    """Spread seeds evenly by Lloyd's relaxation.

    Parameters
    ----------
    seeds : ndarray of float64, (n, 3)
    samples : ndarray of float64, (m, 3)
        Points that fill the region; some dozens per seed are enough.
    metric : ndarray, (3, 3)
        Linear map in which distances are measured.
    rounds : int
        0 returns the seeds as they are.

    Returns
    -------
    ndarray of float64, (n, 3)
    """
    seeds = seeds.copy()
    count = len(seeds)
    mapped = samples @ metric.T
    for _ in range(rounds):
        _, nearest = cKDTree(seeds @ metric.T).query(mapped)
        total = np.bincount(nearest, minlength=count)
        for axis in range(3):
            mean = np.bincount(nearest, samples[:, axis], minlength=count) / np.maximum(total, 1)
            seeds[:, axis] = np.where(total > 0, mean, seeds[:, axis])
    return seeds


def smooth_warp(
    shape: tuple[int, int, int], amplitude: float, scale: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Random smooth displacement (3, z, y, x) in voxels, `amplitude` its standard deviation."""
    return np.stack([np.float32(amplitude) * smooth_noise(shape, scale, rng) for _ in range(3)])
