"""Stacks that the benchmarks measure on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellrt.simulation import (
    ImagingParameters,
    MembraneParameters,
    SimulatedStack,
    simulate_membranes,
)
from cellrt.simulation.styles import simulate_style

PAPER_SHAPE = (181, 331, 160)
MEMBRANES = (128, 256, 256)
NUCLEI = (64, 256, 256)
# 400 cells would fill such a stack.
MEMBRANE_DIAMETER = (6 * math.prod(MEMBRANES) / 400 / math.pi) ** (1 / 3)


def membranes(shape: tuple[int, int, int] = MEMBRANES) -> SimulatedStack:
    """Simulated membranes, with cells of one size whatever the shape."""
    return simulate_membranes(
        shape,
        diameter_voxels=MEMBRANE_DIAMETER,
        membranes=MembraneParameters(),
        imaging=ImagingParameters(),
        seed=42,
    )


def paper_membranes(shape: tuple[int, int, int] = PAPER_SHAPE) -> SimulatedStack:
    """Simulated tissue of the size for which the 3DCellSeg paper gives times."""
    return simulate_membranes(shape, membranes=MembraneParameters(), seed=1)


def nuclei(diameter_voxels: float, shape: tuple[int, int, int] = NUCLEI) -> SimulatedStack:
    """Simulated nuclei in clumps, as a good microscope sees them."""
    return simulate_style("nuclei", seed=42, shape=shape, diameter_voxels=diameter_voxels)


def tissue(shape: tuple[int, int, int], count: int, seed: int = 0) -> NDArray[np.int32]:
    """Relaxed Voronoi cells with walls of about two voxels, as in a membrane-stained tissue."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (count, 3)) * shape
    for _ in range(3):
        sample = rng.uniform(0, 1, (200 * count, 3)) * shape
        owner = cKDTree(seeds).query(sample)[1]
        size = np.maximum(np.bincount(owner, minlength=count), 1)[:, None]
        sums = [np.bincount(owner, sample[:, k], minlength=count) for k in range(3)]
        seeds = np.where(size > 1, np.stack(sums, axis=1) / size, seeds)
    tree, labels = cKDTree(seeds), np.empty(shape, np.int32)
    plane = np.indices(shape[1:]).reshape(2, -1).T
    for z in range(shape[0]):
        places = np.insert(plane, 0, z, axis=1)
        distance, owner = tree.query(places, k=2, workers=-1)
        wall = distance[:, 1] - distance[:, 0] < 2
        labels[z] = np.where(wall, 0, owner[:, 0] + 1).reshape(shape[1:])
    return labels


def mirrored(image: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Repeat an image, mirrored, to a shape."""
    extra = [(0, max(0, n - m)) for n, m in zip(shape, image.shape, strict=True)]
    grown = np.pad(image, extra, mode="symmetric")
    return np.ascontiguousarray(grown[tuple(slice(0, n) for n in shape)])
