"""Images of rod-shaped bacteria: crowded, touching, by three kinds of contrast."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.errors import UsageError
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.structure.curves import pack_rods

Contrast = Literal["fluorescence", "phase", "dic"]
FloatArray = NDArray[np.float32]

# Length over width of an Escherichia coli that grows on agar.
_SLENDER = 3.5
_OFFSET = 200.0


def simulate_bacteria(
    shape: tuple[int, int] = (256, 256),
    *,
    contrast: Contrast = "fluorescence",
    diameter_voxels: float = 16.0,
    filling: float = 0.45,
    photons: float = 300.0,
    pixel_um: float = 0.065,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate one image of bacteria.

    Parameters
    ----------
    shape : (int, int)
        (y, x) in pixels.
    contrast : {"fluorescence", "phase", "dic"}
        Stained cells; phase contrast, dark cells with a bright halo; differential interference
        contrast, relief lit from one side.
    diameter_voxels : float
        Diameter of the disc that has a mean cell's area.
    filling : float
        Share of the image that cells cover; at 0.6 they find hardly room for more.
    photons : float
        Of a pixel of a stained cell, or of the background in transmitted light: fewer, more noise.
    pixel_um : float
    seed : int or numpy.random.Generator

    Returns
    -------
    SimulatedStack
        Of one slice.

    Raises
    ------
    UsageError
        A number that makes no sense.
    """
    if contrast not in get_args(Contrast):
        raise UsageError(f"no contrast '{contrast}'; choose from {', '.join(get_args(Contrast))}")
    if not 0 <= filling <= 1 or not diameter_voxels >= 4 or not photons > 0 or min(shape) < 8:
        raise UsageError(
            f"bacteria of {diameter_voxels:g} pixels that cover {filling:g} of {shape[0]} x "
            f"{shape[1]} pixels with {photons:g} photons cannot be simulated; expected 4 pixels or "
            "more, a share from 0 to 1, 8 x 8 pixels or more and photons"
        )
    rng = np.random.default_rng(seed)
    # Of a rod with round ends the area is width² (pi / 4 + slenderness - 1).
    width = diameter_voxels * math.sqrt(math.pi / 4 / (math.pi / 4 + _SLENDER - 1))
    labels, height, rods = pack_rods(
        shape, length=_SLENDER * width, width=width, filling=filling, rng=rng
    )
    light = _LIGHT[contrast](labels, height / (0.5 * width), len(rods), width, rng)
    grey = rng.poisson(np.maximum(light, 0) * photons) + rng.normal(0, 2.0, shape)
    image = np.clip(np.rint(grey + _OFFSET), 0, 65535).astype(np.uint16)
    parameters = {
        "contrast": contrast,
        "diameter_voxels": diameter_voxels,
        "filling": filling,
        "photons": photons,
        "width_voxels": round(width, 3),
        "seed": json_seed(seed),
    }
    size = (pixel_um, pixel_um, pixel_um)
    return SimulatedStack(image[None], labels[None], size, "bacteria", parameters)


def _fluorescence(
    labels: NDArray[np.int32],
    height: FloatArray,
    count: int,
    width: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Stained cells that differ in brightness, with haze of what lies out of focus."""
    stain = np.exp(0.3 * rng.standard_normal(count + 1)).astype(np.float32)
    texture = np.exp(0.15 * smooth_noise((1, *labels.shape), 0.3 * width, rng)[0])
    sharp = ndimage.gaussian_filter(
        stain[labels] * height * texture, rng.uniform(0.12, 0.2) * width
    )
    haze = ndimage.gaussian_filter(sharp, 1.5 * width)
    return np.asarray(sharp + rng.uniform(0.1, 0.3) * haze + rng.uniform(0.03, 0.15))


def _phase(
    labels: NDArray[np.int32],
    height: FloatArray,
    count: int,
    width: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Dark cells in a bright halo: the ring of the condenser takes slow changes of phase away."""
    dense = (1 + 0.08 * rng.standard_normal(count + 1)).astype(np.float32)
    delay = dense[labels] * height
    sharp = ndimage.gaussian_filter(delay, rng.uniform(0.1, 0.16) * width)
    halo = ndimage.gaussian_filter(delay, rng.uniform(0.7, 1.1) * width)
    contrast = rng.uniform(0.45, 0.7)
    return np.asarray(
        _uneven(labels.shape, rng) - contrast * (sharp - rng.uniform(0.7, 1.0) * halo)
    )


def _dic(
    labels: NDArray[np.int32],
    height: FloatArray,
    count: int,
    width: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Relief: the change of phase along the shear, the same direction in the whole image."""
    dense = (1 + 0.08 * rng.standard_normal(count + 1)).astype(np.float32)
    delay = ndimage.gaussian_filter(dense[labels] * height, rng.uniform(0.1, 0.16) * width)
    shear = rng.uniform(0, 2 * math.pi)
    slope = math.sin(shear) * np.gradient(delay, axis=0) + math.cos(shear) * np.gradient(
        delay, axis=1
    )
    return np.asarray(_uneven(labels.shape, rng) + rng.uniform(0.4, 0.8) * 0.3 * width * slope)


def _uneven(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Transmitted light, brighter here than there."""
    field = smooth_noise((1, shape[0], shape[1]), 0.6 * max(shape), rng)[0]
    return np.asarray(np.exp(0.05 * field), np.float32)


_LIGHT = {"fluorescence": _fluorescence, "phase": _phase, "dic": _dic}
