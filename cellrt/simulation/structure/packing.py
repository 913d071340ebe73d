"""Where nuclei sit: embryos, sheets, clumps, dense or scattered tissue."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.errors import UsageError
from cellrt.simulation.random_fields import smooth_noise

ARRANGEMENTS = ("scattered", "clumps", "dense", "embryo", "shell", "sheet")


def place_nuclei(
    shape: tuple[int, int, int],
    diameter: float,
    diameter_cv: float,
    filling: float,
    contact: float,
    arrangement: str,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw centres, diameters and the local normal of the tissue.

    Centres are drawn at random in the region of the arrangement, pushed apart
    where they are too close, and thinned where that did not suffice.

    Parameters
    ----------
    shape : tuple of int
        Volume (z, y, x) in voxels; nuclei reach beyond its faces.
    diameter, diameter_cv : float
        Mean diameter in voxels and relative standard deviation.
    filling : float
        Wanted share of the region's volume inside nuclei.
    contact : float
        Smallest distance of two centres relative to the sum of their radii; below 1
        nuclei touch and flatten each other.
    arrangement : str
        One of ``ARRANGEMENTS``.
    rng : numpy.random.Generator

    Returns
    -------
    centres : ndarray, (n, 3)
    diameters : ndarray, (n,)
    normals : ndarray, (n, 3)
        Radial in balls, along z elsewhere.
    """
    size = np.asarray(shape, dtype=np.float64)
    margin = 0.6 * diameter
    box = size + 2 * margin
    middle: NDArray[np.float64] | None = None
    cell = math.pi / 6 * diameter**3 * (1 + 3 * diameter_cv**2)
    if arrangement in ("scattered", "dense"):
        count = filling * box.prod() / cell
        centres = rng.uniform(-margin, size + margin, (_at_least_one(count, rng), 3))
    elif arrangement == "clumps":
        count = _at_least_one(filling * box.prod() / cell, rng)
        clumps = rng.uniform(-margin, size + margin, (max(1, round(count / rng.uniform(4, 20))), 3))
        member = rng.integers(len(clumps), size=count)
        centres = clumps[member] + rng.standard_normal((count, 3)) * diameter * 0.9
    elif arrangement in ("embryo", "shell"):
        outer = max(diameter, 0.5 * float(np.sort(size)[1]) * rng.uniform(0.7, 1.1))
        inner = outer - rng.uniform(0.6, 1.6) * diameter if arrangement == "shell" else 0.0
        inner = max(inner, 0.0)
        stretch = np.exp(rng.normal(0, 0.12, 3))
        volume = 4 / 3 * math.pi * (outer**3 - inner**3) * stretch.prod()
        count = _at_least_one(filling * volume / cell, rng)
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radius = (inner**3 + rng.uniform(size=count) * (outer**3 - inner**3)) ** (1 / 3)
        middle = size / 2 + rng.normal(0, 0.08, 3) * size
        centres = middle + direction * radius[:, None] * stretch
    elif arrangement == "sheet":
        layers = int(rng.integers(1, 4))
        thickness = layers * diameter
        count = _at_least_one(filling * box[1] * box[2] * thickness / cell, rng)
        centres = rng.uniform(-margin, size + margin, (count, 3))
        relief = smooth_noise((1, shape[1], shape[2]), 5 * diameter, rng)[0]
        y = np.clip(centres[:, 1], 0, shape[1] - 1).astype(np.intp)
        x = np.clip(centres[:, 2], 0, shape[2] - 1).astype(np.intp)
        tilt = (centres[:, 1:] - size[1:] / 2) @ rng.normal(0, 0.15, 2)
        centres[:, 0] = (
            size[0] * rng.uniform(0.3, 0.7)
            + rng.uniform(-0.5, 0.5, count) * thickness
            + relief[y, x] * diameter * rng.uniform(0, 1)
            + tilt
        )
    else:
        raise UsageError(
            f"arrangement '{arrangement}' is not known; choose from {', '.join(ARRANGEMENTS)}"
        )
    diameters = diameter * np.exp(rng.normal(-(diameter_cv**2) / 2, diameter_cv, len(centres)))
    push_apart(centres, diameters / 2, contact, 30)
    kept = keep_separate(centres, diameters / 2, 0.88 * contact)
    near = ((centres > -margin) & (centres < size + margin)).all(axis=1)
    kept &= near
    centres = centres[kept]
    normals = np.tile([1.0, 0.0, 0.0], (len(centres), 1)) if middle is None else centres - middle
    return centres, diameters[kept], normals + 1e-9


def _at_least_one(count: float, rng: np.random.Generator) -> int:
    return max(1, math.floor(count + rng.uniform()))


@compiled
def push_apart(
    centres: NDArray[np.float64], radii: NDArray[np.float64], contact: float, rounds: int
) -> None:
    """Move centres that are nearer than `contact` times their radii's sum apart, in place."""
    n = centres.shape[0]
    for _ in range(rounds):
        moved = False
        for i in range(n):
            for j in range(i + 1, n):
                wanted = contact * (radii[i] + radii[j])
                dz = centres[j, 0] - centres[i, 0]
                if abs(dz) >= wanted:
                    continue
                dy = centres[j, 1] - centres[i, 1]
                dx = centres[j, 2] - centres[i, 2]
                square = dz * dz + dy * dy + dx * dx
                if square >= wanted * wanted or square == 0.0:
                    continue
                distance = math.sqrt(square)
                half = 0.5 * (wanted - distance) / distance
                centres[i, 0] -= half * dz
                centres[i, 1] -= half * dy
                centres[i, 2] -= half * dx
                centres[j, 0] += half * dz
                centres[j, 1] += half * dy
                centres[j, 2] += half * dx
                moved = True
        if not moved:
            break


@compiled
def keep_separate(
    centres: NDArray[np.float64], radii: NDArray[np.float64], contact: float
) -> NDArray[np.bool_]:
    """Greedy selection in which no two are nearer than `contact` times their radii's sum."""
    n = centres.shape[0]
    kept = np.ones(n, np.bool_)
    for i in range(n):
        for j in range(i):
            if not kept[j]:
                continue
            wanted = contact * (radii[i] + radii[j])
            square = 0.0
            for k in range(3):
                square += (centres[i, k] - centres[j, k]) ** 2
            if square < wanted * wanted:
                kept[i] = False
                break
    return kept
