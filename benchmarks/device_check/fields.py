"""Packed fields like a network's, and shapes: what races and sanitizers decode and draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from cellrt.runtime.decoding.flows.cells import FlowParameters
from cellrt.runtime.decoding.flows.packed_field import pack_field
from cellrt.runtime.decoding.flows.targets import tanh_flow
from cellrt.runtime.decoding.star.harmonics import coefficient_count

EVERY_STEP = FlowParameters(
    radius_range=(1.5, 100.0), wall_thickness=2.5, min_probability=0.55, max_flow_error=0.7
)


def noisy_field(shape: tuple[int, int, int], seed: int, diameter: float = 9) -> NDArray[np.uint32]:
    """Blurred and noisy flow of Voronoi cells with walls between them."""
    rng = np.random.default_rng(seed)
    count = max(3, int(np.prod(shape) / diameter**3))
    seeds = rng.uniform(0, 1, (count, 3)) * shape
    grid = np.indices(shape).reshape(3, -1).T
    distance, owner = cKDTree(seeds).query(grid, k=2, workers=-1)
    labels = np.where(distance[:, 1] - distance[:, 0] < 1.5, 0, owner[:, 0] + 1)
    labels = labels.reshape(shape).astype(np.int32)
    noise = rng.normal(0, 0.25, (4, *shape))
    flow = np.stack([ndimage.gaussian_filter(g, 0.7) for g in tanh_flow(labels)]) + noise[:3]
    foreground = ndimage.gaussian_filter((labels > 0).astype(float), 0.6) + 0.4 * noise[3]
    return pack_field(flow.clip(-1, 1).astype(np.float32), foreground.astype(np.float32))


def shapes(
    kind: str, shape: tuple[int, int, int], seed: int, diameter: float = 18
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres in and around a volume, and values of bumpy shapes of which many overlap."""
    rng = np.random.default_rng(seed)
    count = max(3, int(np.prod(shape) / diameter**3))
    centres = rng.uniform(-2, np.add(shape, 2), (count, 3))
    if kind == "rays":
        return centres, rng.uniform(0.3, 0.6, (count, 1)) * diameter * rng.uniform(
            0.8, 1.2, (count, 96)
        )
    values = rng.normal(0, 0.04 * diameter, (count, coefficient_count(5)))
    values[:, 0] = rng.uniform(0.3, 0.6, count) * diameter * np.sqrt(4 * np.pi)
    return centres, values
