"""What the busiest part of an image looks like: where it is, and how alike its pixels are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Box, Shape
from cellrt.runtime.grid.mended_image import MendedImage


def busiest_box(image: MendedImage, size: Shape) -> Box:
    """Box of a given size where the image varies most, found on a grid of candidate positions.

    Fill counts for nothing, and what is brighter than nearly all of the image no more than that.
    """
    limit = image.defects.hot_above
    best, found = -1.0, tuple(slice(0, n) for n in size)
    for z in _positions(image.shape[0], size[0]):
        for y in _positions(image.shape[1], size[1]):
            for x in _positions(image.shape[2], size[2]):
                box = (slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2]))
                sample = image.crop(box).sample(24)
                if not sample.size:
                    continue
                sample = np.minimum(sample, np.float32(limit))
                spread = float(np.subtract(*np.percentile(sample, [90, 30])))
                if spread > best:
                    best, found = spread, box
    return found[0], found[1], found[2]


def likeness(image: MendedImage, size: Shape) -> tuple[float, float]:
    """How much neighbouring pixels of the busiest part have in common; see `correlation`."""
    return correlation(busiest_part(image, size))


def busiest_part(image: MendedImage, size: Shape) -> NDArray[np.float64]:
    """Voxels of the busiest part of an image, of at most that size, less the mean of each slice."""
    z, y, x = (min(n, p) for n, p in zip(image.shape, size, strict=True))
    crop = image.crop(busiest_box(image, (z, y, x)))
    part = crop.read((0, 0, 0), crop.shape)[0].astype(np.float64)
    part -= part.mean(axis=(1, 2), keepdims=True)  # slices may differ in brightness as a whole
    return part


def correlation(part: NDArray[np.float64], distance: int = 1) -> tuple[float, float]:
    """How much pixels at a distance from each other have in common.

    Parameters
    ----------
    part : ndarray, shape (z, y, x)
        From `busiest_part`.
    distance : int
        In pixels, along x and along y.

    Returns
    -------
    correlation : float
        Pearson's, within slices, along the axis where it is larger; 1 where all is constant.
    chance : float
        What pixels that have nothing in common reach, about.
    """
    power = float(np.square(part).mean())
    chance = 1 / math.sqrt(part.size)
    if power == 0:
        return 1.0, chance
    found = [0.0]
    if part.shape[2] > distance:
        found.append(float((part[..., distance:] * part[..., :-distance]).mean()) / power)
    if part.shape[1] > distance:
        found.append(float((part[:, distance:] * part[:, :-distance]).mean()) / power)
    return max(found), chance


def _positions(length: int, size: int) -> list[int]:
    """Up to five starts, evenly spread."""
    span = length - size
    count = min(5, 1 + math.ceil(2 * span / size)) if span > 0 else 1
    return [round(i * span / max(1, count - 1)) for i in range(count)] if count > 1 else [span // 2]
