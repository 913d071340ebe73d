"""Images of rod-shaped bacteria: crowded, touching, by three kinds of contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.simulation.microscope.planar import (
    check_planar,
    photograph,
    stained_light,
    transmitted_light,
)
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.structure.curves import pack_rods

Contrast = Literal["fluorescence", "phase", "dic"]
FloatArray = NDArray[np.float32]

# Length over width of an Escherichia coli that grows on agar.
_SLENDER = 3.5


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
    check_planar("bacteria", contrast, get_args(Contrast), shape, diameter_voxels, filling, photons)
    rng = np.random.default_rng(seed)
    # Of a rod with round ends the area is width² (pi / 4 + slenderness - 1).
    width = diameter_voxels * math.sqrt(math.pi / 4 / (math.pi / 4 + _SLENDER - 1))
    labels, height, rods = pack_rods(
        shape, length=_SLENDER * width, width=width, filling=filling, rng=rng
    )
    crowd = _Crowd(labels, height / (0.5 * width), len(rods), width)
    image = photograph(_LIGHT[contrast](crowd, rng), photons, rng)
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


@dataclass(frozen=True)
class _Crowd:
    """What is in an image: labels from 1 to `count`, and how thick, in widths, each pixel is."""

    labels: NDArray[np.int32]
    height: FloatArray
    count: int
    width: float

    def delay(self, rng: np.random.Generator) -> FloatArray:
        """Phase that cells add to light, each a bit denser or less."""
        dense = (1 + 0.08 * rng.standard_normal(self.count + 1)).astype(np.float32)
        return np.asarray(dense[self.labels] * self.height)

    def blurred(self, image: FloatArray, widths: float) -> FloatArray:
        """An image out of focus by so many widths of a cell."""
        return np.asarray(ndimage.gaussian_filter(image, widths * self.width))


def _fluorescence(crowd: _Crowd, rng: np.random.Generator) -> FloatArray:
    """Stained cells that differ in brightness, with haze of what lies out of focus."""
    stain = np.exp(0.3 * rng.standard_normal(crowd.count + 1)).astype(np.float32)
    texture = np.exp(0.15 * smooth_noise((1, *crowd.labels.shape), 0.3 * crowd.width, rng)[0])
    sharp = crowd.blurred(stain[crowd.labels] * crowd.height * texture, rng.uniform(0.12, 0.2))
    return stained_light(sharp, crowd.width, rng)


def _phase(crowd: _Crowd, rng: np.random.Generator) -> FloatArray:
    """Dark cells in a bright halo: the ring of the condenser takes slow changes of phase away."""
    delay = crowd.delay(rng)
    sharp = crowd.blurred(delay, rng.uniform(0.1, 0.16))
    halo = crowd.blurred(delay, rng.uniform(0.7, 1.1))
    contrast = rng.uniform(0.45, 0.7)
    light = transmitted_light(delay.shape, rng)
    return np.asarray(light - contrast * (sharp - rng.uniform(0.7, 1.0) * halo))


def _dic(crowd: _Crowd, rng: np.random.Generator) -> FloatArray:
    """Relief: the change of phase along the shear, the same direction in the whole image."""
    delay = crowd.blurred(crowd.delay(rng), rng.uniform(0.1, 0.16))
    shear = rng.uniform(0, 2 * math.pi)
    slope = math.sin(shear) * np.gradient(delay, axis=0) + math.cos(shear) * np.gradient(
        delay, axis=1
    )
    light = transmitted_light(delay.shape, rng)
    return np.asarray(light + rng.uniform(0.4, 0.8) * 0.3 * crowd.width * slope)


_LIGHT = {"fluorescence": _fluorescence, "phase": _phase, "dic": _dic}
