"""Images of worms in a well, as *C. elegans*: long, bent, and across each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.runtime.results.masks import layers_of
from cellrt.simulation.microscope.planar import (
    check_planar,
    photograph,
    stained_light,
    transmitted_light,
)
from cellrt.simulation.random_fields import smooth_noise
from cellrt.simulation.stack import SimulatedStack, json_seed
from cellrt.simulation.structure.worms import lay_worms

Contrast = Literal["brightfield", "fluorescence"]
FloatArray = NDArray[np.float32]

# Length over width of an adult.
_SLENDER = 12.0
# Of the rectangle of that length and width, head and tail leave out so much.
_TAPERED = 0.8


def simulate_worms(
    shape: tuple[int, int] = (256, 256),
    *,
    contrast: Contrast = "brightfield",
    diameter_voxels: float = 32.0,
    filling: float = 0.2,
    photons: float = 300.0,
    pixel_um: float = 8.0,
    seed: int | np.random.Generator = 0,
) -> SimulatedStack:
    """Simulate one image of worms that overlap.

    Parameters
    ----------
    shape : (int, int)
        (y, x) in pixels.
    contrast : {"brightfield", "fluorescence"}
        A bright well with a dark wall, worms with dark rims and grey insides, darker where they
        cross; or stained worms, brighter where they cross.
    diameter_voxels : float
        Diameter of the disc that has a mean worm's area: 32 for worms of about 112 x 9 pixels.
    filling : float
        Share of the well that worms cover; beyond a half they find hardly room for more.
    photons : float
        Of a pixel of a stained worm, or of the well: fewer, more noise.
    pixel_um : float
    seed : int or numpy.random.Generator

    Returns
    -------
    SimulatedStack
        Of one slice, with `layers`: whole worms, those that overlap in different layers. In its
        labels each pixel is the uppermost worm's.

    Raises
    ------
    UsageError
        A number that makes no sense.
    """
    check_planar("worms", contrast, get_args(Contrast), shape, diameter_voxels, filling, photons)
    rng = np.random.default_rng(seed)
    width = diameter_voxels * math.sqrt(math.pi / 4 / (_TAPERED * _SLENDER))
    wall = _distance_to_wall(shape, rng)
    worms = lay_worms(wall > 0, length=_SLENDER * width, width=width, filling=filling, rng=rng)
    labels = np.zeros(shape, np.int32)
    thickness, stained = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for label, (mask, height) in enumerate(worms, 1):
        labels[mask.box][mask.inside] = label
        thickness[mask.box] += height / (0.5 * width)
        stain = math.exp(0.4 * rng.standard_normal())
        stained[mask.box] += np.float32(stain) * height / np.float32(0.5 * width)
    dish = _Dish(thickness, stained, wall, width)
    image = photograph(_LIGHT[contrast](dish, rng), photons, rng)
    parameters = {
        "contrast": contrast,
        "diameter_voxels": diameter_voxels,
        "filling": filling,
        "photons": photons,
        "width_voxels": round(width, 3),
        "seed": json_seed(seed),
    }
    size = (pixel_um, pixel_um, pixel_um)
    layers = layers_of({label: mask for label, (mask, _) in enumerate(worms, 1)}, shape)
    return SimulatedStack(image[None], labels[None], size, "worms", parameters, layers)


def _distance_to_wall(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Pixels from each place to the round wall of the well, which hides corners; below 0 beyond."""
    centre = (np.array(shape) - 1) / 2 + 0.04 * max(shape) * rng.standard_normal(2)
    radius = rng.uniform(0.6, 0.8) * max(shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(radius - np.hypot(y - centre[0], x - centre[1]), np.float32)


@dataclass(frozen=True)
class _Dish:
    """Thickness of worms, in widths of one, summed where they cross; and of their stain."""

    thickness: FloatArray
    stained: FloatArray
    wall: FloatArray
    width: float

    def texture(self, spread: float, rng: np.random.Generator) -> FloatArray:
        """What guts and eggs change, about 1."""
        field = smooth_noise((1, *self.thickness.shape), 0.25 * self.width, rng)[0]
        return np.asarray(np.exp(spread * field), np.float32)


def _brightfield(dish: _Dish, rng: np.random.Generator) -> FloatArray:
    """Light that worms absorb a bit, and bend away from their rims, as seen out of focus."""
    body = dish.thickness * dish.texture(0.25, rng)
    body = ndimage.gaussian_filter(body, rng.uniform(0.06, 0.12) * dish.width)
    # To first order, light out of focus changes by the curvature of the delay that it has got
    # (Teague, J. Opt. Soc. Am. 73, 1983): bright around a worm, dark at its rim.
    curved = ndimage.gaussian_laplace(dish.thickness, 0.14 * dish.width) * dish.width**2
    bent = np.clip(rng.uniform(0.012, 0.025) * curved, -0.35, 0.3)
    through = np.exp(-rng.uniform(0.25, 0.5) * body)
    # The wall lets little light through, with a soft edge.
    inside = 1 / (1 + np.exp(-dish.wall / (0.6 * dish.width)))
    light = transmitted_light(dish.wall.shape, rng) * (0.12 + 0.88 * inside)
    return np.asarray(light * np.maximum(through + bent, 0.05))


def _fluorescence(dish: _Dish, rng: np.random.Generator) -> FloatArray:
    """Stained worms, each as bright as it is, with haze of what lies out of focus."""
    sharp = ndimage.gaussian_filter(
        dish.stained * dish.texture(0.4, rng), rng.uniform(0.08, 0.15) * dish.width
    )
    return stained_light(sharp, dish.width, rng)


_LIGHT = {"brightfield": _brightfield, "fluorescence": _fluorescence}
