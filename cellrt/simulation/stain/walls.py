"""Fluorescence of walls: from labels to the signal of a membrane stain."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled


@compiled
def deposit_walls(
    labels: NDArray[np.int32],
    strength_seed: int,
    spread: float,
    missing: float,
    outer: float,
    second_side: float = 1.0,
) -> NDArray[np.float32]:
    """Put stain on both sides of every face between two different labels.

    Each pair of cells has its own strength (log-normal, from a hash of the two
    labels), so that a wall is weak or strong as a whole. A voxel that touches two
    other cells receives from both: junctions come out brighter, as they do in real stains.

    Parameters
    ----------
    labels : ndarray of int32, (z, y, x)
    strength_seed : int
        Seeds the hash.
    spread : float
        Standard deviation of the logarithm of a wall's strength.
    missing : float
        Share of walls that are nearly unstained.
    outer : float
        Relative strength of walls towards the background (label 0).
    second_side : float
        Share of the stain on the side of the smaller label: 1 gives walls of
        two voxels, 0 of one.

    Returns
    -------
    ndarray of float32, (z, y, x)
    """
    out = np.zeros(labels.shape, np.float32)
    nz, ny, nx = labels.shape
    steps = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                a = labels[z, y, x]
                first = -1
                total = 0.0
                others = 0
                for dz, dy, dx in steps:
                    u, v, w = z + dz, y + dy, x + dx
                    if u < 0 or v < 0 or w < 0 or u >= nz or v >= ny or w >= nx:
                        continue
                    b = labels[u, v, w]
                    if b == a or b == first:  # noqa: SIM109 - numba has no `in` here
                        continue
                    strength = math.exp(spread * pair_noise(a, b, strength_seed))
                    if missing > 0 and pair_share(a, b, strength_seed + 1) < missing:
                        strength *= 0.15
                    if a < b:
                        strength *= second_side
                    if a == 0 or b == 0:
                        strength *= outer
                    # The second neighbour adds half: a junction, not two walls.
                    total += strength if others == 0 else 0.5 * strength
                    others += 1
                    first = b
                out[z, y, x] = total
    return out


@compiled
def pair_noise(a: int, b: int, seed: int) -> float:
    """Roughly normal number that depends on an unordered pair and a seed only."""
    # The variance of four uniform numbers is 1/3.
    total = 0.0
    for k in range(4):
        total += pair_share(a, b, seed + 7919 * (k + 1))
    return (total - 2.0) * math.sqrt(3.0)


@compiled
def pair_share(a: int, b: int, seed: int) -> float:
    """Uniform number in [0, 1) that depends on an unordered pair and a seed only."""
    low, high = (a, b) if a < b else (b, a)
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
    for part in (np.uint64(low), np.uint64(high)):
        # The finaliser of splitmix64 (Steele et al., OOPSLA 2014).
        state = (state ^ part) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return float(state >> np.uint64(11)) / 9007199254740992.0
