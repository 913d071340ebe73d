"""Stacks that the benchmarks measure on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation import (
    ImagingParameters,
    MembraneParameters,
    SimulatedStack,
    simulate_membranes,
)

PAPER_SHAPE = (181, 331, 160)
MEMBRANES = (128, 256, 256)
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


def mirrored(image: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Repeat an image, mirrored, to a shape."""
    extra = [(0, max(0, n - m)) for n, m in zip(shape, image.shape, strict=True)]
    grown = np.pad(image, extra, mode="symmetric")
    return np.ascontiguousarray(grown[tuple(slice(0, n) for n in shape)])
