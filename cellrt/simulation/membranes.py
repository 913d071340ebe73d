"""Simulated stacks of stained cell membranes or walls."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation.microscope.imaging import degrade
from cellrt.simulation.microscope.sampling import SamplingGrid, sampling_grid
from cellrt.simulation.parameters.imaging import ImagingParameters
from cellrt.simulation.parameters.membranes import MembraneParameters
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.stain.stain import paint_membranes
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.label_source import cut_from_labels
from cellrt.simulation.structure.tissue import draw_tissue


def simulate_membranes(
    shape: tuple[int, int, int] = (64, 96, 96),
    *,
    diameter_voxels: float = 24.0,
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    membranes: MembraneParameters | None = None,
    imaging: ImagingParameters | None = None,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate a stack of tissue with stained membranes.

    The cells are a relaxed power diagram in an anisotropic metric whose walls are
    curved by a smooth warp. The labels are dense, as in real ground truth of
    membranes: a wall belongs half to each of its two cells, and only the outside of the
    tissue and air spaces are background.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the stack.
    diameter_voxels : float
        Diameter of the sphere of a cell's mean volume, in voxels along y and x.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm. Cells are round in µm: a size along z
        larger than along y and x samples them coarser along z.
    membranes : MembraneParameters, optional
        Drawn with `MembraneParameters.random` by default.
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
    >>> stack = simulate_membranes((16, 48, 48), voxel_size_um=(1.0, 0.5, 0.5), seed=1)
    >>> stack.image.shape, stack.image.dtype.name, stack.labels.dtype.name
    ((16, 48, 48), 'uint16', 'int32')
    """
    grid = sampling_grid(shape, voxel_size_um, diameter_voxels)
    rng = np.random.default_rng(seed)
    membranes = MembraneParameters.random(rng) if membranes is None else membranes
    imaging = ImagingParameters.random(rng, "membranes") if imaging is None else imaging
    labels = draw_tissue(grid.fine_shape, diameter_voxels, membranes, rng)
    origin = {"source": "tessellation", "seed": json_seed(seed)}
    return _image_tissue(labels, grid, diameter_voxels, membranes, imaging, origin, rng)


def simulate_membranes_from_labels(
    source: NDArray[Any],
    shape: tuple[int, int, int] = (64, 96, 96),
    *,
    diameter_voxels: float = 24.0,
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
    source_anisotropy: float = 1.0,
    membranes: MembraneParameters | None = None,
    imaging: ImagingParameters | None = None,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate a membrane stain on the cells of a real label volume.

    A random box of `source`, mirrored and turned at random, is resampled (nearest
    neighbour) such that the median cell has the wanted diameter, and its
    walls are curved a little. The fields of `membranes` that shape a
    tessellation (relaxation to outline, gaps) have no effect here, except the curvature.

    Parameters
    ----------
    source : ndarray of integers, (z, y, x)
        Labels, 0 is background.
    shape, diameter_voxels, voxel_size_um, membranes, imaging, seed
        As in :func:`simulate_membranes`.
    source_anisotropy : float
        Voxel size of `source` along z over that along y and x.

    Returns
    -------
    SimulatedStack

    Raises
    ------
    InputError
        When `source` is not a label volume or has no cells.
    UsageError
        When shape, voxel size or diameter make no sense.
    """
    grid = sampling_grid(shape, voxel_size_um, diameter_voxels)
    rng = np.random.default_rng(seed)
    membranes = MembraneParameters.random(rng) if membranes is None else membranes
    imaging = ImagingParameters.random(rng, "membranes") if imaging is None else imaging
    labels = cut_from_labels(
        source,
        grid.fine_shape,
        diameter_voxels,
        source_anisotropy,
        0.5 * membranes.curvature,
        membranes.curvature_scale_diameters,
        rng,
    )
    origin = {
        "source": "labels",
        "source_anisotropy": source_anisotropy,
        "seed": json_seed(seed),
    }
    return _image_tissue(labels, grid, diameter_voxels, membranes, imaging, origin, rng)


def _image_tissue(
    labels: NDArray[np.int32],
    grid: SamplingGrid,
    diameter: float,
    membranes: MembraneParameters,
    imaging: ImagingParameters,
    origin: dict[str, Any],
    rng: np.random.Generator,
) -> SimulatedStack:
    signal = paint_membranes(labels, diameter, membranes, rng)
    image = degrade(signal, imaging, rng, z_step=grid.z_step, slices=grid.slices)
    smallest = max(3, int(0.01 * diameter**3 / grid.z_step))
    labels = keep_largest_components(grid.take_slices(labels), min_voxels=smallest, fill=True)
    parameters = {
        **origin,
        "shape": list(grid.shape),
        "diameter_voxels": diameter,
        "voxel_size_um": list(grid.voxel_size_um),
        "membranes": asdict(membranes),
        "imaging": asdict(imaging),
    }
    return SimulatedStack(image, labels, grid.voxel_size_um, "membranes", parameters)
