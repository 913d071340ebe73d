"""Simulated stacks of stained cell membranes or walls."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation.microscope.imaging import ImagingParameters, degrade, log_uniform
from cellrt.simulation.microscope.sampling import SamplingGrid, sampling_grid
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.stain.stain import paint_membranes
from cellrt.simulation.structure.components import keep_largest_components
from cellrt.simulation.structure.label_source import cut_from_labels
from cellrt.simulation.structure.tissue import OUTLINES, draw_tissue


@dataclass(frozen=True)
class MembraneParameters:
    """What the tissue looks like before the microscope sees it.

    Intensities are relative to the typical wall, 1. Lengths named `_diameters`
    are in mean cell diameters.

    Attributes
    ----------
    relaxation : int
        Rounds of Lloyd relaxation; more make cells more alike.
    size_spread : float
        Spread of the power diagram's weights, 0 gives a Voronoi diagram.
    elongation : float
        Ratio of the long to the short axis of the cells.
    divided_share : float
        Share of cells that are freshly divided in two.
    curvature : float
        Standard deviation of the warp that curves the walls, in diameters.
    curvature_scale_diameters : float
        Length over which the warp changes.
    outline : str
        ``"none"`` (tissue everywhere), ``"ball"``, ``"cylinder"``, ``"half"``,
        ``"sheet"`` (epithelium) or ``"shell"`` (hollow ball).
    bulge : float
        How much the outermost cells bulge, 0 to 1.
    gap_share : float
        Share of cells turned into air spaces (label 0).
    thickness_voxels : float
        Width of a wall, 1 or more.
    wall_spread : float
        Standard deviation of the logarithm of the strength per pair of cells.
    missing_walls : float
        Share of walls that are nearly unstained.
    weak_share : float
        Depth of staining gaps along walls, 0 to 1.
    outer_strength : float
        Strength of walls towards the outside.
    cytoplasm : float
        Level of signal inside cells.
    cytoplasm_spread : float
        Standard deviation of its logarithm between cells.
    cytoplasm_texture : float
        Relative standard deviation of its texture.
    nuclei : float
        Brightness of nuclei that glimmer through, 0 for none.
    spots_per_cell : float
        Mean number of bright puncta per cell.
    core_fade_diameters : float
        Depth below the tissue's surface at which the signal has fallen to 1/e; 0 for no fall-off.
    haze : float
        Level of light outside of the tissue and everywhere.
    """

    relaxation: int = 3
    size_spread: float = 0.3
    elongation: float = 1.3
    divided_share: float = 0.2
    curvature: float = 0.08
    curvature_scale_diameters: float = 0.8
    outline: str = "none"
    bulge: float = 0.4
    gap_share: float = 0.0
    thickness_voxels: float = 2.0
    wall_spread: float = 0.3
    missing_walls: float = 0.0
    weak_share: float = 0.3
    outer_strength: float = 1.2
    cytoplasm: float = 0.1
    cytoplasm_spread: float = 0.4
    cytoplasm_texture: float = 0.3
    nuclei: float = 0.0
    spots_per_cell: float = 0.5
    core_fade_diameters: float = 0.0
    haze: float = 0.03

    @classmethod
    def random(cls, rng: np.random.Generator) -> MembraneParameters:
        """Draw tissue and stain from a wide but realistic range."""
        return cls(
            relaxation=int(rng.integers(0, 6)),
            size_spread=rng.uniform(0.0, 0.6),
            elongation=math.exp(abs(rng.normal(0, 0.4))),
            divided_share=rng.uniform(0.0, 0.5),
            curvature=rng.uniform(0.0, 0.14),
            curvature_scale_diameters=rng.uniform(0.4, 1.5),
            outline=str(rng.choice(OUTLINES, p=[0.36, 0.18, 0.1, 0.14, 0.14, 0.08])),
            bulge=float(rng.uniform(0.0, 1.0)),
            gap_share=rng.uniform(0.0, 0.06) if rng.uniform() < 0.2 else 0.0,
            thickness_voxels=rng.uniform(1.0, 3.0),
            wall_spread=rng.uniform(0.05, 0.6),
            missing_walls=rng.uniform(0.0, 0.08) if rng.uniform() < 0.3 else 0.0,
            weak_share=rng.uniform(0.0, 0.8),
            outer_strength=rng.uniform(0.6, 2.0),
            cytoplasm=log_uniform(rng, 0.01, 0.35),
            cytoplasm_spread=rng.uniform(0.0, 0.6),
            cytoplasm_texture=rng.uniform(0.1, 0.6),
            nuclei=rng.uniform(0.05, 0.5) if rng.uniform() < 0.25 else 0.0,
            spots_per_cell=rng.uniform(0, 6) if rng.uniform() < 0.35 else 0.0,
            core_fade_diameters=rng.uniform(1.5, 6) if rng.uniform() < 0.4 else 0.0,
            haze=log_uniform(rng, 0.003, 0.15),
        )


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
