"""What images of one slice have in common: light through a slide or of stain, a plain camera."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.errors import UsageError
from cellrt.simulation.random_fields import smooth_noise

# Grey value of no light, and the spread of the noise that reading adds.
_OFFSET = 200.0
_READ_NOISE = 2.0


def check_planar(
    cells: str,
    contrast: str,
    contrasts: Collection[str],
    shape: tuple[int, int],
    diameter_voxels: float,
    filling: float,
    photons: float,
) -> None:
    """Refuse what no image of these cells, named in the plural, can be made with.

    Raises
    ------
    UsageError
    """
    if contrast not in contrasts:
        raise UsageError(f"no contrast '{contrast}'; choose from {', '.join(contrasts)}")
    size = f"{shape[0]} x {shape[1]} pixels"
    if min(shape) < 8:
        raise UsageError(f"an image of {size} is too small; give 8 x 8 pixels or more")
    if not 4 <= diameter_voxels <= min(shape):
        raise UsageError(
            f"{cells} of {diameter_voxels:g} pixels cannot be simulated in {size}; give a diameter "
            f"of 4 to {min(shape)} pixels"
        )
    if not 0 <= filling <= 1:
        raise UsageError(f"filling is {filling:g}; expected a share of the image from 0 to 1")
    if not photons > 0:
        raise UsageError(f"photons is {photons:g}; expected a number above 0")


def transmitted_light(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Light of a lamp through an empty slide, about 1, brighter here than there; (y, x)."""
    field = smooth_noise((1, shape[0], shape[1]), 0.6 * max(shape), rng)[0]
    return np.asarray(np.exp(0.05 * field), np.float32)


def stained_light(
    sharp: NDArray[np.float32], width: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Light (y, x) of stained cells so many pixels wide, with haze of what lies out of focus."""
    haze = ndimage.gaussian_filter(sharp, 1.5 * width)
    return np.asarray(sharp + rng.uniform(0.1, 0.3) * haze + rng.uniform(0.03, 0.15))


def photograph(
    light: NDArray[np.float32], photons: float, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Grey values (y, x) with shot noise and read noise of light that is 1 for so many photons."""
    grey = rng.poisson(np.maximum(light, 0) * photons) + rng.normal(0, _READ_NOISE, light.shape)
    return np.clip(np.rint(grey + _OFFSET), 0, 65535).astype(np.uint16)
