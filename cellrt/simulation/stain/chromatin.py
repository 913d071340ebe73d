"""Brightness inside nuclei: chromatin texture, nucleoli, chromocentres, envelope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.simulation.parameters.nuclei import NucleiParameters
from cellrt.simulation.random_fields import smooth_noise


def paint_nuclei(
    owner: NDArray[np.int32],
    depth: NDArray[np.float32],
    rival: NDArray[np.float32],
    centres: NDArray[np.float64],
    diameters: NDArray[np.float64],
    mitotic: NDArray[np.bool_],
    diameter_voxels: float,
    nuclei: NucleiParameters,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Turn the rasterised shapes into fluorophore density.

    Parameters
    ----------
    owner, depth, rival
        From :func:`cellrt.simulation.structure.shapes.rasterise`.
    centres, diameters, mitotic
        The nuclei, in the order of `owner`.
    diameter_voxels : float
        Mean diameter; the texture's grains scale with it.
    nuclei : NucleiParameters
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, (z, y, x)
    """
    n = len(centres)
    brightness = np.exp(rng.normal(0, nuclei.brightness_cv, n))
    brightness *= np.where(rng.uniform(size=n) < nuclei.dim_share, rng.uniform(0.2, 0.5, n), 1.0)
    brightness *= np.where(mitotic, rng.uniform(1.4, 2.6, n), 1.0)
    tilt = rng.normal(0, 0.15, (n, 3)) / np.maximum(diameters / 2, 1)[:, None]
    texture = smooth_noise(owner.shape, nuclei.texture_scale * diameter_voxels, rng)
    texture += np.float32(0.6) * smooth_noise(
        owner.shape, 0.5 * nuclei.texture_scale * diameter_voxels, rng
    )
    strength = nuclei.texture / math.sqrt(1.36) * np.where(mitotic, 0.3, 1.0)
    signal = _paint(
        owner,
        depth,
        rival,
        centres,
        brightness.astype(np.float32),
        tilt.astype(np.float32),
        texture,
        strength.astype(np.float32),
        np.float32(nuclei.core),
        np.float32(nuclei.rim),
        np.float32(nuclei.rim_width * diameter_voxels),
        np.float32(nuclei.gap_voxels),
    )
    holes = _spots(n, nuclei.nucleoli, diameters, centres, ~mitotic, (0.1, 0.2), rng)
    grains = _spots(n, nuclei.chromocentres, diameters, centres, ~mitotic, (0.05, 0.1), rng)
    _apply_spots(signal, owner, *holes, np.float32(rng.uniform(-0.9, -0.4)))
    _apply_spots(signal, owner, *grains, np.float32(rng.uniform(0.5, 2.5)))
    return np.asarray(signal)


def _spots(
    n: int,
    mean: float,
    diameters: NDArray[np.float64],
    centres: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    sizes: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Owner, position and radius (voxels) of spots inside the nuclei."""
    of = np.repeat(np.arange(n), np.where(allowed, rng.poisson(mean, n), 0))
    direction = rng.standard_normal((len(of), 3))
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    reach = 0.36 * diameters[of] * rng.uniform(size=len(of)) ** (1 / 3)
    positions = centres[of] + direction * reach[:, None]
    return of, positions, diameters[of] * rng.uniform(*sizes, len(of))


@compiled
def _paint(
    owner: NDArray[np.int32],
    depth: NDArray[np.float32],
    rival: NDArray[np.float32],
    centres: NDArray[np.float64],
    brightness: NDArray[np.float32],
    tilt: NDArray[np.float32],
    texture: NDArray[np.float32],
    strength: NDArray[np.float32],
    core: np.float32,
    rim: np.float32,
    rim_width: np.float32,
    gap: np.float32,
) -> NDArray[np.float32]:
    signal = np.zeros(owner.shape, np.float32)
    for z in range(owner.shape[0]):
        for y in range(owner.shape[1]):
            for x in range(owner.shape[2]):
                i = owner[z, y, x] - 1
                if i < 0:
                    continue
                d = depth[z, y, x]
                # Half a voxel of soft edge: the share of the voxel inside the surface.
                cover = min(1.0, max(0.0, 0.5 + d))
                if cover <= 0.0:
                    continue
                seam = 0.5 * (d - rival[z, y, x])
                if rival[z, y, x] > -gap and seam < 0.5 * gap:
                    cover *= max(0.0, seam / (0.5 * gap))
                value = 1.0 + strength[i] * texture[z, y, x]
                value *= core + rim * math.exp(-max(d, 0.0) / rim_width)
                value *= (
                    1.0
                    + tilt[i, 0] * (z - centres[i, 0])
                    + tilt[i, 1] * (y - centres[i, 1])
                    + tilt[i, 2] * (x - centres[i, 2])
                )
                signal[z, y, x] = brightness[i] * cover * max(value, 0.05)
    return signal


@compiled
def _apply_spots(
    signal: NDArray[np.float32],
    owner: NDArray[np.int32],
    of: NDArray[np.int64],
    positions: NDArray[np.float64],
    radii: NDArray[np.float64],
    amplitude: np.float32,
) -> None:
    for k in range(of.shape[0]):
        reach = 1.6 * radii[k] + 1.0
        low = np.empty(3, np.int64)
        high = np.empty(3, np.int64)
        for axis in range(3):
            low[axis] = max(0, int(positions[k, axis] - reach))
            high[axis] = min(signal.shape[axis], int(positions[k, axis] + reach) + 2)
        for z in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                for x in range(low[2], high[2]):
                    if owner[z, y, x] != of[k] + 1:
                        continue
                    square = (
                        (z - positions[k, 0]) ** 2
                        + (y - positions[k, 1]) ** 2
                        + (x - positions[k, 2]) ** 2
                    )
                    weight = math.exp(-((square / (radii[k] * radii[k])) ** 2))
                    signal[z, y, x] *= max(0.0, 1.0 + amplitude * weight)
