"""Tissue with an outline: cells that fill a ball, a stem, a sheet or the whole stack."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.simulation.parameters.membranes import OUTLINES, MembraneParameters
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.shapes import random_rotation
from cellrt.simulation.structure.tessellation import relax, smooth_warp, tessellate

_SAMPLES_PER_CELL = 40

SignedDistance = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def draw_tissue(
    shape: tuple[int, int, int],
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Draw dense labels of a tissue on an isotropic grid.

    Seeds are spread in the region that the outline encloses, so that the
    outermost cells follow it as an epidermis does.

    Parameters
    ----------
    shape : tuple of int
        Volume (z, y, x); the tissue reaches beyond its faces.
    diameter : float
        Diameter of the sphere of a cell's mean volume, in voxels.
    membranes : MembraneParameters
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int32, (z, y, x)
        0 outside of the tissue and in gaps, 1..n inside.
    """
    size = np.asarray(shape, dtype=np.float64)
    outline = outline_distance(membranes.outline, size, diameter, rng)
    low, high = np.full(3, -diameter), size + diameter
    cells_in_box = (high - low).prod() / (math.pi / 6 * diameter**3)
    probe = rng.uniform(low, high, (4000, 3))
    share = max(float((outline(probe) < 0).mean()), 1 / 4000)
    count = max(1, round(share * cells_in_box / (1 + membranes.divided_share)))
    samples = _fill_region(low, high, outline, _SAMPLES_PER_CELL * count, share, rng)

    rotation = random_rotation(rng)
    long, short = membranes.elongation ** (-2 / 3), membranes.elongation ** (1 / 3)
    metric = rotation @ np.diag([long, short, short]) @ rotation.T
    start = samples[rng.choice(len(samples), count, replace=len(samples) < count)]
    seeds = relax(start, samples, metric, membranes.relaxation)
    weights = rng.uniform(-1, 1, count) * membranes.size_spread * (0.5 * diameter) ** 2
    seeds, weights = _divide(seeds, weights, membranes.divided_share, diameter, metric, rng)

    scale = membranes.curvature_scale_diameters * diameter
    warp = smooth_warp(shape, membranes.curvature * diameter, scale, rng)
    labels, distances = tessellate(shape, seeds, weights, metric, warp)
    _cut_outside(labels, distances, warp, outline, diameter, membranes, rng)
    is_gap = rng.uniform(size=len(seeds) + 1) < membranes.gap_share
    labels[is_gap[labels]] = 0
    smallest = int(0.02 * diameter**3)
    return keep_largest_components(labels, min_voxels=smallest, fill=True)


def outline_distance(
    outline: str, size: NDArray[np.float64], diameter: float, rng: np.random.Generator
) -> SignedDistance:
    """Draw the outline of a tissue.

    Parameters
    ----------
    outline : str
        One of ``OUTLINES``.
    size : ndarray, (3,)
        Size of the volume in voxels.
    diameter : float
        Cell diameter in voxels; sheets and shells are one to three cells thick.
    rng : numpy.random.Generator

    Returns
    -------
    callable
        Maps points (..., 3) in voxels to their signed distance from the
        outline in voxels, negative inside.
    """
    if outline not in OUTLINES:
        raise UsageError(f"outline '{outline}' is not known; choose from {', '.join(OUTLINES)}")
    middle = size * rng.uniform(0.35, 0.65, 3)
    rotation = random_rotation(rng)
    # Balls that leave background at the faces and balls that only clip the corners.
    radius = max(float(np.median(size)) * rng.uniform(0.35, 0.7), 1.2 * diameter)
    stretch = np.exp(rng.normal(0, 0.2, 3))
    if outline == "shell":
        # A larger one would leave mere corners of the stack with cells.
        radius *= 0.7
    half_thickness = 0.5 * diameter * float(rng.uniform(0.8, 3.0))
    level = float(size.min() * rng.uniform(0.0, 0.3))
    if outline == "sheet" and rng.uniform() < 0.6:
        # Most epithelia are mounted flat.
        rotation = np.eye(3)
    tilt = rng.normal(0, 0.15, 2)

    def distance(points: NDArray[np.floating]) -> NDArray[np.floating]:
        if outline == "none":
            return np.full(points.shape[:-1], -1e6, dtype=np.float32)
        local = (points - middle.astype(points.dtype)) @ rotation.astype(points.dtype)
        if outline == "half":
            return np.asarray(local[..., 0] - level)
        if outline == "sheet":
            height = local[..., 0] + tilt[0] * local[..., 1] + tilt[1] * local[..., 2]
            return np.asarray(np.abs(height) - half_thickness)
        scaled = local / stretch.astype(points.dtype)
        if outline == "cylinder":
            return np.asarray(np.hypot(scaled[..., 1], scaled[..., 2]) - radius)
        from_centre = np.sqrt((scaled**2).sum(axis=-1))
        if outline == "shell":
            return np.asarray(np.abs(from_centre - radius) - half_thickness)
        return np.asarray(from_centre - radius)

    return distance


def _fill_region(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    outline: SignedDistance,
    count: int,
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    points = rng.uniform(low, high, (math.ceil(1.1 * count / share) + 10, 3))
    inside = points[outline(points) < 0]
    # An outline that misses the stack leaves no point; then the nearest ones do.
    return inside[:count] if len(inside) else points[np.argsort(outline(points))[:count]]


def _divide(
    seeds: NDArray[np.float64],
    weights: NDArray[np.float64],
    share: float,
    diameter: float,
    metric: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Replace some seeds by two close ones: a straight, new wall through the old cell."""
    chosen = np.flatnonzero(rng.uniform(size=len(seeds)) < share)
    shift = rng.standard_normal((len(chosen), 3))
    shift *= 0.22 * diameter / np.maximum(np.linalg.norm(shift, axis=1, keepdims=True), 1e-9)
    shift = shift @ np.linalg.inv(metric).T
    twins = seeds[chosen] + shift
    seeds[chosen] -= shift
    return np.concatenate([seeds, twins]), np.concatenate([weights, weights[chosen]])


def _cut_outside(
    labels: NDArray[np.int32],
    distances: NDArray[np.float32],
    warp: NDArray[np.float32],
    outline: SignedDistance,
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> None:
    """Set voxels outside of the outline to 0, in place."""
    if membranes.outline == "none":
        return
    relief = smooth_noise(labels.shape, 2.5 * diameter, rng) * np.float32(0.2 * diameter)
    # The farther from its seed, the earlier a cell ends: outer cells bulge.
    dome = np.minimum((2 * distances / diameter) ** 2 - 1, 1.5) * (0.25 * diameter)
    for z in range(labels.shape[0]):
        points = np.stack(
            np.meshgrid(
                np.float32(z),
                np.arange(labels.shape[1], dtype=np.float32),
                np.arange(labels.shape[2], dtype=np.float32),
                indexing="ij",
            ),
            axis=-1,
        )[0]
        points += np.moveaxis(warp[:, z], 0, -1)
        outside = outline(points) + relief[z] + membranes.bulge * dome[z] > 0
        labels[z][outside] = 0
