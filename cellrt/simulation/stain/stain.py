"""The stain of a tissue: walls, cytoplasm, nuclei that glimmer through, puncta, haze."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.simulation.microscope.optics import gaussian, interpolate
from cellrt.simulation.parameters.membranes import MembraneParameters
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stain.walls import deposit_walls


def paint_membranes(
    labels: NDArray[np.int32],
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Fluorophore density of a membrane stain.

    Parameters
    ----------
    labels : ndarray of int32, (z, y, x)
        Dense labels on an isotropic grid.
    diameter : float
        Mean cell diameter in voxels; textures scale with it.
    membranes : MembraneParameters
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, (z, y, x)
        A typical wall is 1.
    """
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    walls = deposit_walls(
        labels,
        int(rng.integers(2**31)),
        membranes.wall_spread,
        membranes.missing_walls,
        membranes.outer_strength,
        min(1.0, max(0.0, membranes.thickness_voxels - 1)),
    )
    if membranes.thickness_voxels > 2:
        sigma = 0.5 * (membranes.thickness_voxels - 1)
        # A wall two voxels wide keeps its height: divided by what the filter leaves of it.
        root = sigma * math.sqrt(2)
        height = 0.5 * (math.erf(1.5 / root) + math.erf(0.5 / root))
        walls = gaussian(walls, (sigma, sigma, sigma)) * np.float32(1 / height)
    patchy = smooth_noise(shape, 0.35 * diameter, rng)
    walls *= 1 - np.float32(membranes.weak_share) / (1 + np.exp(-3 * (patchy - 0.8)))
    n = int(labels.max(initial=0))
    level = membranes.cytoplasm * np.exp(rng.normal(0, membranes.cytoplasm_spread, n + 1))
    level[0] = 0
    texture = 0.6 * smooth_noise(shape, 0.2 * diameter, rng) + 0.6 * smooth_noise(
        shape, max(1.5, 0.07 * diameter), rng
    )
    inside = level.astype(np.float32)[labels]
    inside *= np.maximum(1 + np.float32(membranes.cytoplasm_texture) * texture, 0)
    signal = walls + inside
    if n and (membranes.nuclei > 0 or membranes.spots_per_cell > 0):
        _add_inclusions(signal, labels, n, diameter, membranes, rng)
    if membranes.core_fade_diameters > 0:
        signal *= _core_fade(labels, membranes.core_fade_diameters * diameter)
    haze = np.exp(0.6 * smooth_noise(shape, 2 * diameter, rng)) * np.float32(membranes.haze)
    return np.asarray(signal + haze, dtype=np.float32)


def _core_fade(labels: NDArray[np.int32], length: float) -> NDArray[np.float32]:
    """Brightness that falls with the depth below the tissue's surface."""
    step = 4
    inside = labels[::step, ::step, ::step] > 0
    if inside.all():
        return np.ones((1, 1, 1), np.float32)
    # A coarse distance is smooth enough, and 64 times cheaper.
    depth = step * ndimage.distance_transform_edt(inside)
    fade: NDArray[np.float32] = np.exp(-depth / length).astype(np.float32)
    for axis, n in enumerate(labels.shape):
        at = np.clip(np.arange(n) / step, 0, fade.shape[axis] - 1)
        fade = interpolate(fade, at, axis)
    return fade


def _add_inclusions(
    signal: NDArray[np.float32],
    labels: NDArray[np.int32],
    n: int,
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> None:
    if membranes.nuclei > 0:
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, n + 1)))
        for label, centre in enumerate(centres, start=1):
            if rng.uniform() < 0.25:
                continue
            radius = diameter * rng.uniform(0.15, 0.26)
            _add_ball(
                signal, labels, label, centre, radius, membranes.nuclei * rng.uniform(0.5, 1.3)
            )
    for _ in range(rng.poisson(membranes.spots_per_cell * n)):
        centre = np.array([rng.integers(s) for s in labels.shape])
        label = int(labels[tuple(centre)])
        if label:
            _add_ball(
                signal, labels, label, centre, rng.uniform(0.7, 1.6), float(rng.uniform(0.3, 2))
            )


def _add_ball(
    signal: NDArray[np.float32],
    labels: NDArray[np.int32],
    label: int,
    centre: NDArray[Any],
    radius: float,
    brightness: float,
) -> None:
    low = np.maximum(np.floor(centre - radius - 1).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius + 2).astype(int), signal.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.ogrid[box]
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
    cover = np.clip(radius - distance + 0.5, 0, 1) * (labels[box] == label)
    signal[box] += np.float32(brightness) * cover.astype(np.float32)
