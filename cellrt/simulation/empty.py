"""Stacks without any cell: the empty wells of a plate, the medium beside a tissue."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from cellrt.simulation.microscope.imaging import degrade
from cellrt.simulation.microscope.sampling import sampling_grid
from cellrt.simulation.parameters.imaging import ImagingParameters
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stack import SimulatedStack, json_seed

# Clouds of stray light are larger than cells, in cell diameters.
_CLOUDS = (2.5, 8.0)
_BRIGHTEST_HAZE = 0.3


def simulate_empty(
    shape: tuple[int, int, int] = (64, 128, 128),
    *,
    kind: str = "nuclei",
    diameter_voxels: float = 16.0,
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    imaging: ImagingParameters | None = None,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate what a microscope records where there is no cell.

    That is stray light in clouds larger than cells, the detector's background, uneven
    illumination, and noise; stretched to full contrast it can look busy.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the stack.
    kind : str
        What is not there: ``"nuclei"`` or ``"membranes"``.
    diameter_voxels : float
        Diameter of a cell, had there been one, in voxels along y and x.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm.
    imaging : ImagingParameters, optional
        Drawn with `ImagingParameters.random` by default.
    seed : int or numpy.random.Generator
        With the same seed and parameters the stack comes out byte for byte.

    Returns
    -------
    SimulatedStack
        Its labels are all 0.

    Raises
    ------
    UsageError
        When shape, voxel size or diameter make no sense.

    Examples
    --------
    >>> simulate_empty((8, 32, 32), seed=1).cell_count
    0
    """
    grid = sampling_grid(shape, voxel_size_um, diameter_voxels)
    rng = np.random.default_rng(seed)
    imaging = ImagingParameters.random(rng, kind) if imaging is None else imaging
    clouds = diameter_voxels * float(rng.uniform(*_CLOUDS))
    brightness = _BRIGHTEST_HAZE * float(rng.uniform()) ** 2  # mostly little
    haze = np.clip(1.0 + smooth_noise(grid.fine_shape, clouds, rng), 0.0, None)
    image = degrade(
        haze * np.float32(brightness),
        imaging,
        rng,
        z_step=grid.z_step,
        slices=grid.slices,
        normalise=False,
    )
    parameters = {
        "source": "empty",
        "seed": json_seed(seed),
        "shape": list(grid.shape),
        "diameter_voxels": diameter_voxels,
        "voxel_size_um": list(grid.voxel_size_um),
        "haze": brightness,
        "clouds_voxels": clouds,
        "imaging": asdict(imaging),
    }
    labels = np.zeros(image.shape, np.int32)
    return SimulatedStack(image, labels, grid.voxel_size_um, kind, parameters)
