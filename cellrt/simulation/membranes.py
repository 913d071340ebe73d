"""Simulated stacks of stained cell membranes or walls."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.simulation.components import keep_largest_components
from cellrt.simulation.fields import smooth_noise
from cellrt.simulation.imaging import ImagingParameters, degrade, slice_positions
from cellrt.simulation.shapes import random_rotation
from cellrt.simulation.stack import SimulatedStack
from cellrt.simulation.tessellation import relaxed_seeds, smooth_warp, tessellate
from cellrt.simulation.walls import deposit_walls


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
        ``"none"`` (tissue everywhere), ``"ball"``, ``"cylinder"`` or ``"half"``.
    gap_share : float
        Share of cells turned into air spaces (label 0).
    thickness_voxels : float
        Width of a wall.
    wall_spread : float
        Standard deviation of the logarithm of the strength per pair of cells.
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
    gap_share: float = 0.0
    thickness_voxels: float = 2.0
    wall_spread: float = 0.3
    weak_share: float = 0.3
    outer_strength: float = 1.2
    cytoplasm: float = 0.1
    cytoplasm_spread: float = 0.4
    cytoplasm_texture: float = 0.3
    nuclei: float = 0.0
    spots_per_cell: float = 0.5
    haze: float = 0.03

    @classmethod
    def random(cls, rng: np.random.Generator) -> MembraneParameters:
        """Draw tissue and stain from a wide but realistic range."""
        return cls(
            relaxation=int(rng.integers(0, 6)),
            size_spread=rng.uniform(0.0, 0.6),
            elongation=float(np.exp(np.abs(rng.normal(0, 0.4)))),
            divided_share=rng.uniform(0.0, 0.5),
            curvature=rng.uniform(0.0, 0.14),
            curvature_scale_diameters=rng.uniform(0.4, 1.5),
            outline=str(rng.choice(["none", "ball", "cylinder", "half"], p=[0.4, 0.25, 0.15, 0.2])),
            gap_share=rng.uniform(0.0, 0.06) if rng.uniform() < 0.2 else 0.0,
            thickness_voxels=rng.uniform(1.0, 3.0),
            wall_spread=rng.uniform(0.05, 0.6),
            weak_share=rng.uniform(0.0, 0.8),
            outer_strength=rng.uniform(0.6, 2.0),
            cytoplasm=float(np.exp(rng.uniform(math.log(0.01), math.log(0.4)))),
            cytoplasm_spread=rng.uniform(0.0, 0.6),
            cytoplasm_texture=rng.uniform(0.1, 0.6),
            nuclei=rng.uniform(0.05, 0.5) if rng.uniform() < 0.25 else 0.0,
            spots_per_cell=rng.uniform(0, 6) if rng.uniform() < 0.35 else 0.0,
            haze=float(np.exp(rng.uniform(math.log(0.003), math.log(0.15)))),
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

    The labels are dense, as in real ground truth of membranes: a wall belongs
    half to each of its two cells, and only outside of the tissue and in air
    spaces is background.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the stack.
    diameter_voxels : float
        Diameter of the sphere of a cell's mean volume, in voxels along y and x.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm; z larger than y and x samples coarser along z.
    membranes : MembraneParameters, optional
        Drawn at random by default.
    imaging : ImagingParameters, optional
        Drawn at random by default.
    seed : int or numpy.random.Generator

    Returns
    -------
    SimulatedStack
    """
    rng = np.random.default_rng(seed)
    membranes = MembraneParameters.random(rng) if membranes is None else membranes
    imaging = ImagingParameters.random(rng) if imaging is None else imaging
    z_step = voxel_size_um[0] / voxel_size_um[2]
    fine = (max(1, round(shape[0] * z_step)), shape[1], shape[2])
    labels = _tissue(fine, diameter_voxels, membranes, rng)
    record = {
        "shape": list(shape),
        "diameter_voxels": diameter_voxels,
        "voxel_size_um": list(voxel_size_um),
        "seed": seed if isinstance(seed, int) else None,
    }
    return _image_tissue(
        labels, shape[0], z_step, diameter_voxels, voxel_size_um, membranes, imaging, record, rng
    )


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

    A box at a random place, in a random orientation of the axes' mirror
    images, is cut from `source` and resampled (nearest neighbour) so that the median
    cell has the wanted diameter.

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
    """
    rng = np.random.default_rng(seed)
    membranes = MembraneParameters.random(rng) if membranes is None else membranes
    imaging = ImagingParameters.random(rng) if imaging is None else imaging
    z_step = voxel_size_um[0] / voxel_size_um[2]
    fine = (max(1, round(shape[0] * z_step)), shape[1], shape[2])
    sizes = np.bincount(source.ravel().astype(np.int64))[1:]
    volume = float(np.median(sizes[sizes > 0])) * source_anisotropy
    zoom = (6 / math.pi * volume) ** (1 / 3) / diameter_voxels
    amplitude = 0.5 * membranes.curvature * diameter_voxels
    warp = smooth_warp(fine, amplitude, membranes.curvature_scale_diameters * diameter_voxels, rng)
    index = []
    for axis, (n, available) in enumerate(zip(fine, source.shape, strict=True)):
        step = zoom / source_anisotropy if axis == 0 else zoom
        start = rng.uniform(0, max(0.0, available - n * step))
        line = np.arange(n, dtype=np.float32) * np.float32(step) + np.float32(start)
        if rng.uniform() < 0.5:
            line = line[::-1]
        grid = line.reshape([-1 if k == axis else 1 for k in range(3)])
        at = np.rint(grid + warp[axis] * np.float32(step)).astype(np.intp)
        # Mirror at the faces, so that any shape can be cut from any source.
        period = max(1, 2 * (available - 1))
        at = np.mod(at, period)
        index.append(np.where(at >= available, period - at, at))
    labels = keep_largest_components(
        _compact(source[tuple(index)]), min_voxels=int(0.02 * diameter_voxels**3), fill=True
    )
    record = {
        "shape": list(shape),
        "diameter_voxels": diameter_voxels,
        "voxel_size_um": list(voxel_size_um),
        "source_anisotropy": source_anisotropy,
        "seed": seed if isinstance(seed, int) else None,
    }
    return _image_tissue(
        labels, shape[0], z_step, diameter_voxels, voxel_size_um, membranes, imaging, record, rng
    )


def _compact(labels: NDArray[Any]) -> NDArray[np.int32]:
    values, inverse = np.unique(labels, return_inverse=True)
    offset = 0 if values[0] == 0 else 1
    return np.asarray((inverse.reshape(labels.shape) + offset).astype(np.int32))


def _tissue(
    shape: tuple[int, int, int],
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    size = np.asarray(shape, dtype=np.float64)
    margin = diameter
    box = np.stack([np.full(3, -margin), size + margin])
    divided = membranes.divided_share
    count = (box[1] - box[0]).prod() / (math.pi / 6 * diameter**3) / (1 + divided)
    count = max(1, round(count))
    rotation = random_rotation(rng)
    stretch = np.array([membranes.elongation ** (-2 / 3), *[membranes.elongation ** (1 / 3)] * 2])
    metric = rotation @ np.diag(stretch) @ rotation.T
    seeds = relaxed_seeds(box, count, metric, membranes.relaxation, rng)
    split = np.flatnonzero(rng.uniform(size=count) < divided)
    normal = rng.standard_normal((len(split), 3))
    normal *= 0.22 * diameter / np.linalg.norm(normal, axis=1, keepdims=True)
    twins = seeds[split] + normal
    seeds[split] -= normal
    weights = rng.uniform(-1, 1, count) * membranes.size_spread * (0.5 * diameter) ** 2
    seeds, weights = np.concatenate([seeds, twins]), np.concatenate([weights, weights[split]])
    outside = ~_inside_outline(seeds, size, diameter, membranes, rng)
    outside |= rng.uniform(size=len(seeds)) < membranes.gap_share
    warp = smooth_warp(
        shape,
        membranes.curvature * diameter,
        membranes.curvature_scale_diameters * diameter,
        rng,
    )
    labels = tessellate(shape, seeds, weights, metric, warp)
    identity = np.arange(len(seeds) + 1, dtype=np.int32)
    identity[1:][outside] = 0
    return keep_largest_components(identity[labels], min_voxels=int(0.02 * diameter**3), fill=True)


def _inside_outline(
    points: NDArray[np.float64],
    size: NDArray[np.float64],
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    if membranes.outline == "none":
        return np.ones(len(points), dtype=bool)
    middle = size * rng.uniform(0.35, 0.65, 3)
    local = (points - middle) @ random_rotation(rng)
    radius = float(np.median(size)) * rng.uniform(0.4, 0.75)
    if membranes.outline == "ball":
        inside = np.linalg.norm(local / np.exp(rng.normal(0, 0.2, 3)), axis=1) < radius
    elif membranes.outline == "cylinder":
        inside = np.linalg.norm(local[:, 1:], axis=1) < radius
    elif membranes.outline == "half":
        inside = local[:, 0] < 0.25 * float(size.min())
    else:
        raise ValueError(f"unknown outline {membranes.outline!r}")
    if not inside.any():
        inside[np.argmin(np.linalg.norm(local, axis=1))] = True
    return np.asarray(inside)


def _image_tissue(
    labels: NDArray[np.int32],
    slices: int,
    z_step: float,
    diameter: float,
    voxel_size_um: tuple[float, float, float],
    membranes: MembraneParameters,
    imaging: ImagingParameters,
    record: dict[str, Any],
    rng: np.random.Generator,
) -> SimulatedStack:
    signal = paint_membranes(labels, diameter, membranes, rng)
    image = degrade(signal, imaging, rng, z_step=z_step, slices=slices)
    chosen = np.rint(slice_positions(labels.shape[0], z_step, slices)).astype(np.intp)
    labels = keep_largest_components(
        labels[chosen], min_voxels=max(3, int(0.01 * diameter**3 / z_step)), fill=True
    )
    record |= {"membranes": asdict(membranes), "imaging": asdict(imaging)}
    return SimulatedStack(image, labels, voxel_size_um, "membranes", record)


def paint_membranes(
    labels: NDArray[np.int32],
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Fluorophore density of a membrane stain on an isotropic label volume."""
    shape = labels.shape
    walls = deposit_walls(
        labels, int(rng.integers(2**31)), membranes.wall_spread, membranes.outer_strength
    )
    if membranes.thickness_voxels > 2:
        sigma = 0.5 * (membranes.thickness_voxels - 2) + 0.3
        walls = ndimage.gaussian_filter(walls, sigma) * np.float32(1 + 0.6 * sigma)
    patchy = smooth_noise(shape, 0.35 * diameter, rng)
    walls *= 1 - np.float32(membranes.weak_share) / (1 + np.exp(-3 * (patchy - 0.8)))
    n = int(labels.max(initial=0))
    level = membranes.cytoplasm * np.exp(rng.normal(0, membranes.cytoplasm_spread, n + 1))
    level[0] = 0
    texture = 0.6 * smooth_noise(shape, 0.2 * diameter, rng) + 0.6 * smooth_noise(
        shape, max(1.5, 0.07 * diameter), rng
    )
    inside = level.astype(np.float32)[labels]
    inside *= np.maximum(1 + np.float32(membranes.cytoplasm_texture) * texture, 0)
    signal = walls + inside
    if n and (membranes.nuclei > 0 or membranes.spots_per_cell > 0):
        _add_inclusions(signal, labels, n, diameter, membranes, rng)
    haze = np.exp(0.6 * smooth_noise(shape, 2 * diameter, rng)) * np.float32(membranes.haze)
    return np.asarray(signal + haze, dtype=np.float32)


def _add_inclusions(
    signal: NDArray[np.float32],
    labels: NDArray[np.int32],
    n: int,
    diameter: float,
    membranes: MembraneParameters,
    rng: np.random.Generator,
) -> None:
    if membranes.nuclei > 0:
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, n + 1)))
        for label, centre in enumerate(centres, start=1):
            if rng.uniform() < 0.25:
                continue
            radius = diameter * rng.uniform(0.15, 0.26)
            _add_ball(
                signal, labels, label, centre, radius, membranes.nuclei * rng.uniform(0.5, 1.3)
            )
    for _ in range(rng.poisson(membranes.spots_per_cell * n)):
        centre = np.array([rng.integers(s) for s in labels.shape])
        label = int(labels[tuple(centre)])
        if label:
            _add_ball(
                signal, labels, label, centre, rng.uniform(0.7, 1.6), float(rng.uniform(0.3, 2))
            )


def _add_ball(
    signal: NDArray[np.float32],
    labels: NDArray[np.int32],
    label: int,
    centre: NDArray[Any],
    radius: float,
    brightness: float,
) -> None:
    low = np.maximum(np.floor(centre - radius - 1).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius + 2).astype(int), signal.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.ogrid[box]
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
    cover = np.clip(radius - distance + 0.5, 0, 1) * (labels[box] == label)
    signal[box] += np.float32(brightness) * cover.astype(np.float32)
