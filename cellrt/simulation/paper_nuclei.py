"""The simulated nuclei of the HarmonicNet paper (Eschweiler et al., spherical harmonics).

About 350 shapes from spherical harmonics in a stack of 1000 x 140 x 140 voxels,
distorted by a point-spread function and additive Gaussian noise N(0, 0.1). The
measured point-spread functions of the paper are replaced by two-Gaussian models.
"""

from __future__ import annotations

import numpy as np

from cellrt.errors import UsageError
from cellrt.simulation.microscope.imaging import degrade
from cellrt.simulation.microscope.sampling import sampling_grid
from cellrt.simulation.parameters.imaging import ImagingParameters
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.packing import keep_separate, push_apart
from cellrt.simulation.structure.shapes import random_radius_tables, rasterise

PAPER_SHAPE = (140, 140, 1000)
PAPER_COUNT = 350
PAPER_DIAMETER = 28.0
NOISE_SD = 0.1
GREY_PER_SIGNAL = 1000.0

# Standard deviations (z, xy) in voxels, weight and width of the out-of-focus tail.
_POINT_SPREAD = {
    "noise": (0.0, 0.0, 0.0, 1.0),
    "psf1": (2.4, 1.2, 0.15, 4.0),
    "psf2": (4.0, 1.8, 0.3, 3.0),
}
PAPER_VARIANTS = tuple(_POINT_SPREAD)


def simulate_paper_nuclei(
    variant: str = "psf2",
    shape: tuple[int, int, int] = PAPER_SHAPE,
    *,
    count: int | None = None,
    diameter_voxels: float = PAPER_DIAMETER,
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate a stack in the setting of the HarmonicNet paper.

    Parameters
    ----------
    variant : str
        ``"noise"`` (noise only), ``"psf1"`` or ``"psf2"`` (blur and noise). The paper
        trains on the first two and tests on the third.
    shape : tuple of int
        Shape (z, y, x); the paper's stack with its long axis along x by default.
    count : int, optional
        Number of nuclei to place; by default the paper's density. A few less
        remain where there is no room.
    diameter_voxels : float
        Mean diameter; the paper does not state it.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm. The grid is isotropic, so all three have to agree.
    seed : int or numpy.random.Generator

    Returns
    -------
    SimulatedStack
        A grey value of 1000 is the offset, and a nucleus adds 1000.

    Raises
    ------
    UsageError
        When the variant is not known or a number makes no sense.
    """
    if variant not in _POINT_SPREAD:
        raise UsageError(
            f"variant '{variant}' is not known; choose from {', '.join(PAPER_VARIANTS)}"
        )
    grid = sampling_grid(shape, voxel_size_um, diameter_voxels)
    if abs(grid.z_step - 1) > 0.01:
        raise UsageError(
            f"voxel size is {tuple(voxel_size_um)}; the paper's stacks are isotropic: "
            "give the same size along z, y and x"
        )
    rng = np.random.default_rng(seed)
    if count is None:
        count = max(1, round(PAPER_COUNT * np.prod(shape) / np.prod(PAPER_SHAPE)))
    size = np.asarray(grid.shape, dtype=np.float64)
    wall = np.minimum(0.55 * diameter_voxels, 0.5 * size)
    centres = rng.uniform(wall, size - wall, (count, 3))
    diameters = diameter_voxels * np.exp(rng.normal(0, 0.1, count))
    for _ in range(60):
        # Nuclei touch, but hardly cut each other: radii vary by about 10 percent.
        push_apart(centres, diameters / 2, 1.1, 1)
        np.clip(centres, wall, size - wall, out=centres)
    kept = keep_separate(centres, diameters / 2, 0.95)
    centres, diameters = centres[kept], diameters[kept]
    tables = random_radius_tables(
        diameters, np.ones((len(centres), 3)), np.full(len(centres), 0.12), rng, order=5
    )
    owner, depth, _ = rasterise(grid.shape, centres, tables)
    labels = keep_largest_components(np.where(depth > 0, owner, 0).astype(np.int32), min_voxels=10)
    sigma_z, sigma_xy, weight, scale = _POINT_SPREAD[variant]
    imaging = ImagingParameters(
        blur_z_voxels=sigma_z,
        blur_xy_voxels=sigma_xy,
        tail_weight=weight,
        tail_scale=scale,
        depth_decay=0.0,
        depth_blur=0.0,
        shading=0.0,
        background=0.0,
        photons=0.0,
        gain=GREY_PER_SIGNAL,
        read_noise=NOISE_SD * GREY_PER_SIGNAL,
        offset=GREY_PER_SIGNAL,
    )
    signal = np.clip(depth + np.float32(0.5), 0, 1)
    image = degrade(signal, imaging, rng, normalise=False)
    parameters = {
        "style": "paper",
        "variant": variant,
        "seed": json_seed(seed),
        "shape": list(grid.shape),
        "count": count,
        "diameter_voxels": diameter_voxels,
        "voxel_size_um": list(grid.voxel_size_um),
    }
    return SimulatedStack(image, labels, grid.voxel_size_um, "nuclei", parameters)
