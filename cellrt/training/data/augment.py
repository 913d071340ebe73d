"""Draw a training patch from a stack: one spatial resampling, then a simulated acquisition.

PyTorch's own 3D kernels do the work (`grid_sample`, `interpolate`): one combined affine and
elastic resampling per patch where a chain of library transforms would resample the patch four
times. A 48x48x48 patch with its margin costs about 20 ms on one core against 600 ms or more for
its share of a training step.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from cellrt.models.ground_truth import UNKNOWN
from cellrt.runtime.grid.brightness_kernels import DARKEST
from cellrt.runtime.grid.hot_pixels import HOT_QUANTILE, without_hot_pixels
from cellrt.training.data.accidents import AFTERWARDS, AT_SENSOR, BEFORE_SENSOR, Scene, play
from cellrt.training.recipe import AugmentTable

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int32]

# Below the light of any stack by more than interpolation at its border mixes in.
_FAR = 100.0
_BEYOND = -3.5
_PERMUTATIONS = tuple(itertools.permutations(range(3)))


@dataclass(frozen=True)
class Geometry:
    """Where a patch's voxels lie in the stack: ``source = centre + matrix @ offset + elastic``.

    Attributes
    ----------
    centre : (3,) float array
        Voxel position in the stack that the patch's middle shows.
    matrix : (3, 3) float array
        From patch voxels to stack voxels, axes (z, y, x).
    elastic : (3, 5, 5, 5) float array
        Displacement in stack voxels at control points spread over the patch; zeros when rigid.
    """

    centre: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]
    elastic: npt.NDArray[np.float64]


def draw_geometry(
    centre: npt.NDArray[Any],
    table: AugmentTable,
    rng: np.random.Generator,
    *,
    flat: bool = False,
) -> Geometry:
    """Draw zoom, anisotropy, turns, flips and elastic bending for a patch around `centre`.

    With `flat` the patch stays in its plane.
    """
    zoom = _log_uniform(table.zoom, rng)
    stretch = np.array([_log_uniform(table.anisotropy, rng) for _ in range(3)])
    matrix = np.diag(1.0 / (zoom * stretch / np.cbrt(np.prod(stretch))))
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * table.rotation_degrees)
    if flat:
        angles[1:] = 0
    matrix = _rotation(angles) @ matrix
    if rng.random() < table.permute_probability and not flat:
        order = _PERMUTATIONS[rng.integers(len(_PERMUTATIONS))]
    else:
        order = ((0, 1, 2), (0, 2, 1))[rng.integers(2)]  # with flips: all 90° turns in-plane
    signs = rng.choice([-1.0, 1.0], 3)
    matrix = matrix @ (np.eye(3)[list(order)] * signs)
    elastic = np.zeros((3, 5, 5, 5))
    if rng.random() < table.elastic_probability:
        elastic = rng.normal(0.0, rng.uniform(0, table.elastic_voxels) / zoom, elastic.shape)
    if flat:
        elastic[0] = 0
    return Geometry(np.asarray(centre, float), matrix, elastic)


def sample_patch(
    image: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    geometry: Geometry,
    shape: tuple[int, int, int],
    margin: int,
    *,
    mirrored: bool = False,
) -> tuple[Tensor, LabelArray]:
    """Resample image and labels with the same geometry.

    Parameters
    ----------
    image, labels : (z, y, x) arrays
        The stack on the model grid; the image may be float16.
    geometry : Geometry
    shape : tuple of int
        Patch size in voxels.
    margin : int
        Voxels by which the label patch is larger on every side.
    mirrored : bool
        Beyond the stack the image is mirrored, as the runtime fills up a last tile; else 0.

    Returns
    -------
    image : (z, y, x) float32 Tensor
        Trilinear.
    labels : (z+2m, y+2m, x+2m) int32 array
        Nearest neighbour; ``UNKNOWN`` beyond the stack.
    """
    outer = tuple(size + 2 * margin for size in shape)
    where = _source_positions(geometry, outer)
    low = np.floor(where.amin((0, 1, 2)).numpy()).astype(int) - 1
    high = np.ceil(where.amax((0, 1, 2)).numpy()).astype(int) + 2
    low = np.clip(low, 0, np.array(image.shape) - 1)
    high = np.clip(high, low + 1, image.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    where = where - torch.from_numpy(low.astype(np.float32))

    # One is added so that the zeros which grid_sample pads with become UNKNOWN (-1).
    crop = torch.from_numpy(labels[box].astype(np.float32)) + 1.0
    label_patch = _grid_sample(crop, where, "nearest").numpy().astype(np.int32) - 1
    inner = tuple(slice(margin, margin + size) for size in shape)
    # What lies beyond a stack that is not mirrored is told by its value.
    pixels = torch.from_numpy(image[box].astype(np.float32)) + _FAR
    padding = "reflection" if mirrored else "zeros"
    return _grid_sample(pixels, where[inner], "bilinear", padding) - _FAR, label_patch


def acquire(scene: Scene, table: AugmentTable, rng: np.random.Generator) -> None:
    """Image a clean patch again, with what goes wrong: uneven light, blur, coarse sampling, noise.

    Parameters
    ----------
    scene : Scene
        Changed in place.
    table : AugmentTable
    rng : numpy.random.Generator
    """
    play(BEFORE_SENSOR, scene, rng, table.accidents)
    image = torch.from_numpy(scene.image)
    if rng.random() < table.acquisition_probability:
        image = _degrade(image, scene.offset, table, rng)
    else:
        image = _camera(image, scene.offset, table, rng)
    scene.image = image.numpy()
    play(AFTERWARDS, scene, rng, table.accidents)


def change_contrast(image: Tensor, table: AugmentTable, rng: np.random.Generator) -> Tensor:
    """Change gamma, gain and offset of normalised intensities, softly clipped as the runtime does.

    What the rule for the intensity leaves open: how bright a cell is beside its neighbours.
    """
    if rng.random() < table.contrast_probability:
        image = image.sign() * image.abs() ** _log_uniform(table.gamma, rng)
        image = image * _log_uniform(table.gain, rng) + rng.uniform(*table.offset)
        image = torch.where(image > 1, 1 + torch.log(image.clamp(min=1)), image.clamp(min=DARKEST))
    return image


def beyond(image: Tensor) -> npt.NDArray[np.bool_]:
    """Voxels of a sampled patch that lie beyond a stack that was not mirrored."""
    return (image < _BEYOND).numpy()


def _degrade(image: Tensor, offset: float, table: AugmentTable, rng: np.random.Generator) -> Tensor:
    """Uneven light, loss with depth, blur, coarse sampling and noise."""
    shape = image.shape
    if rng.random() < table.uneven_probability:
        field = torch.from_numpy(rng.uniform(-table.uneven, table.uneven, (4, 4, 4)))
        image = image * torch.exp(_enlarge(field.float(), shape))
    if rng.random() < table.falloff_probability:
        image = image * _falloff(shape, rng.uniform(0, table.falloff), rng)
    if rng.random() < table.blur_probability:
        width = rng.uniform(*table.blur_voxels)
        image = _blur(image, (width, width, width))
    if rng.random() < table.blur_z_probability:
        image = _blur(image, (rng.uniform(*table.blur_z_voxels), 0.0, 0.0))
    return _sensor(image, offset, table, rng)


def _sensor(image: Tensor, offset: float, table: AugmentTable, rng: np.random.Generator) -> Tensor:
    """Sample coarsely, add noise there, and interpolate back as the runtime would."""
    shape = image.shape
    coarse = [1.0, 1.0, 1.0]
    if rng.random() < table.coarse_z_probability:
        coarse[0] = rng.uniform(*table.coarse_z)
    if rng.random() < table.coarse_xy_probability:
        coarse[1] = coarse[2] = rng.uniform(*table.coarse_xy)
    small = tuple(min(n, max(4, round(n / c))) for n, c in zip(shape, coarse, strict=True))
    image = _enlarge(image, small)
    if rng.random() < table.noise_probability:
        photons = _log_uniform(table.photons, rng)
        noise = torch.from_numpy(rng.standard_normal(tuple(small), np.float32))
        # Gaussian with the Poisson variance: the sum over many pixels is what the network sees.
        variance = image.clamp(min=0) / photons + rng.uniform(*table.read_noise) ** 2
        image = image + variance.sqrt() * noise
    return _enlarge(_camera(image, offset, table, rng), shape)


def _camera(image: Tensor, offset: float, table: AugmentTable, rng: np.random.Generator) -> Tensor:
    """What happens to pixels, and what the runtime mends of it before it resamples."""
    pixels = np.ascontiguousarray(image.numpy())
    nothing = np.zeros((0, 0, 0), np.int32)
    scene = Scene(pixels, nothing, nothing.astype(bool), offset)
    play(AT_SENSOR, scene, rng, table.accidents)
    bright = float(np.quantile(scene.image[::2, ::2, ::2], HOT_QUANTILE))
    return torch.from_numpy(without_hot_pixels(np.asarray(scene.image), bright))


def _falloff(shape: tuple[int, ...], lost: float, rng: np.random.Generator) -> Tensor:
    axis = 0 if rng.random() < 0.6 else int(rng.integers(3))
    ramp = 1.0 - lost * torch.linspace(0, 1, shape[axis])
    if rng.random() < 0.5:
        ramp = ramp.flip(0)
    return ramp.reshape([-1 if k == axis else 1 for k in range(3)])


def _blur(image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    for axis, width in enumerate(sigma):
        if width <= 0:
            continue
        radius = min(max(1, math.ceil(2.5 * width)), image.shape[axis] - 1)
        taps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (taps / width) ** 2)
        kernel = kernel / kernel.sum()
        lines = image.movedim(axis, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        flat = F.conv1d(F.pad(flat, (radius, radius), mode="replicate"), kernel[None, None])
        image = flat.reshape(lines.shape).movedim(-1, axis)
    return image.contiguous()


def _enlarge(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(image.shape) == tuple(shape):
        return image
    return F.interpolate(image[None, None], tuple(shape), mode="trilinear", align_corners=False)[
        0, 0
    ]


def _source_positions(geometry: Geometry, shape: tuple[int, ...]) -> Tensor:
    """Return ``(z, y, x, 3)`` stack positions of every patch voxel."""
    matrix = torch.from_numpy(geometry.matrix.astype(np.float32))
    where = torch.from_numpy(geometry.centre.astype(np.float32)).expand(*shape, 3)
    for axis, size in enumerate(shape):
        offset = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        reshaped = offset.reshape([-1 if k == axis else 1 for k in range(3)] + [1])
        where = where + reshaped * matrix[:, axis]
    if geometry.elastic.any():
        control = torch.from_numpy(geometry.elastic.astype(np.float32))[None]
        bend = F.interpolate(control, tuple(shape), mode="trilinear", align_corners=True)[0]
        where = where + bend.permute(1, 2, 3, 0)
    return where


def _grid_sample(array: Tensor, where: Tensor, mode: str, padding: str = "zeros") -> Tensor:
    """`grid_sample` in voxel positions (z, y, x)."""
    size = torch.tensor(array.shape, dtype=torch.float32)
    grid = ((2 * where + 1) / size - 1).flip(-1)  # align_corners=False, last axis is (x, y, z)
    return F.grid_sample(
        array[None, None], grid[None], mode=mode, padding_mode=padding, align_corners=False
    )[0, 0]


def _rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = bounds
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


assert UNKNOWN == -1  # sample_patch's padding relies on it
