"""Simulated stacks of fluorescent nuclei."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation.microscope.imaging import degrade
from cellrt.simulation.microscope.sampling import sampling_grid
from cellrt.simulation.parameters.imaging import ImagingParameters
from cellrt.simulation.parameters.nuclei import NucleiParameters
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.stain.chromatin import paint_nuclei
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.packing import place_nuclei
from cellrt.simulation.structure.shapes import random_radius_tables, rasterise


def simulate_nuclei(
    shape: tuple[int, int, int] = (64, 96, 96),
    *,
    diameter_voxels: float = 16.0,
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    nuclei: NucleiParameters | None = None,
    imaging: ImagingParameters | None = None,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate a stack of nuclei with known labels.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the stack.
    diameter_voxels : float
        Mean diameter of the sphere of a nucleus's volume, in voxels along y and x.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm. Nuclei have their shape in µm: a size along z
        larger than along y and x samples them coarser along z.
    nuclei : NucleiParameters, optional
        Drawn with `NucleiParameters.random` by default.
    imaging : ImagingParameters, optional
        Drawn with `ImagingParameters.random` by default.
    seed : int or numpy.random.Generator
        With the same seed and parameters the stack comes out byte for byte.

    Returns
    -------
    SimulatedStack

    Raises
    ------
    UsageError
        When shape, voxel size or diameter make no sense.

    Examples
    --------
    >>> stack = simulate_nuclei((16, 48, 48), voxel_size_um=(1.0, 0.5, 0.5), seed=1)
    >>> stack.image.shape, stack.image.dtype.name, stack.labels.dtype.name
    ((16, 48, 48), 'uint16', 'int32')
    """
    grid = sampling_grid(shape, voxel_size_um, diameter_voxels)
    rng = np.random.default_rng(seed)
    nuclei = NucleiParameters.random(rng) if nuclei is None else nuclei
    imaging = ImagingParameters.random(rng) if imaging is None else imaging
    fine = grid.fine_shape
    centres, diameters, normals = place_nuclei(
        fine,
        diameter_voxels,
        nuclei.diameter_cv,
        nuclei.filling,
        nuclei.contact,
        nuclei.arrangement,
        rng,
    )
    n = len(centres)
    mitotic = rng.uniform(size=n) < nuclei.mitotic_share
    ratios = _axis_ratios(n, nuclei, mitotic, rng)
    flat = rng.uniform(size=n) < nuclei.flat_share
    ratios[flat, 2] = ratios[flat].min(axis=1) * rng.uniform(0.45, 0.85, np.count_nonzero(flat))
    normals[~flat] = np.nan
    # Condensed chromosomes take less room than the nucleus they come from.
    tables = random_radius_tables(
        diameters * np.where(mitotic, 0.7, 1.0),
        ratios,
        np.full(n, nuclei.roughness),
        rng,
        normals=normals,
    )
    owner, depth, rival = rasterise(fine, centres, tables)
    labels = np.where(depth > 0, owner, 0).astype(np.int32)
    signal = paint_nuclei(
        owner, depth, rival, centres, diameters, mitotic, diameter_voxels, nuclei, rng
    )
    signal += _haze(fine, diameter_voxels, nuclei, rng)
    image = degrade(signal, imaging, rng, z_step=grid.z_step, slices=grid.slices)
    labels = keep_largest_components(
        grid.take_slices(labels), min_voxels=max(3, int(0.02 * diameter_voxels**3 / grid.z_step))
    )
    parameters = {
        "seed": json_seed(seed),
        "shape": list(grid.shape),
        "diameter_voxels": diameter_voxels,
        "voxel_size_um": list(grid.voxel_size_um),
        "nuclei": asdict(nuclei),
        "imaging": asdict(imaging),
    }
    return SimulatedStack(image, labels, grid.voxel_size_um, "nuclei", parameters)


def _axis_ratios(
    n: int, nuclei: NucleiParameters, mitotic: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    stretch = 1 + (nuclei.elongation - 1) * rng.uniform(0.3, 1.7, n)
    prolate = rng.uniform(size=n) < 0.6
    ratios = np.ones((n, 3))
    ratios[:, 0] = stretch
    ratios[:, 1] = np.where(prolate, np.exp(rng.normal(0, 0.08, n)), stretch)
    ratios[mitotic] = (1.0, 0.85, 0.38)
    return ratios


def _haze(
    shape: tuple[int, int, int],
    diameter: float,
    nuclei: NucleiParameters,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    slow = smooth_noise(shape, 3 * diameter, rng)
    fine = smooth_noise(shape, 0.4 * diameter, rng)
    haze = np.exp(np.float32(nuclei.haze_contrast) * (0.8 * slow + 0.4 * fine))
    haze *= np.float32(nuclei.haze)
    for _ in range(rng.poisson(nuclei.debris * haze.size / 1e6)):
        z, y, x = (int(rng.integers(n)) for n in shape)
        reach = int(rng.integers(1, 3))
        haze[z : z + reach, y : y + reach, x : x + reach] += np.float32(rng.uniform(0.5, 6))
    return np.asarray(haze, dtype=np.float32)
