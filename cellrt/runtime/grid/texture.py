"""Where an image is busiest, or as busy as it typically is, and how alike its pixels are there."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Box, Shape
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.threads import in_threads

# Candidates along an axis. Where more would be needed for boxes that overlap by a half, cells might
# lie between them, and so many of the liveliest places of the overview are looked at as well.
MOST_POSITIONS = 5
LIVELIEST = 20
# Voxels of a box, at least, that tell how much it varies, and of the overview those that tell which
# places are lively. With three times as many, and the whole overview, sizes of 55 embryos are off
# by as much (0.13, log units, with `nuclei`), and the search takes a quarter longer.
LOOKED_AT = 16**3
LIVELY_LOOKED_AT = 8**3
# Boxes that vary less than this share of the one that varies most are empty.
LIVELY = 0.25


def busiest_box(image: MendedImage, size: Shape) -> Box:
    """Box of a given size where the image varies most, of candidate positions.

    Fill counts for nothing, and what is brighter than nearly all of the image no more than that.
    """
    starts = _spread_starts(image, size)
    if any(_needed(*axis) > MOST_POSITIONS for axis in zip(image.shape, size, strict=True)):
        starts = itertools.chain(starts, _liveliest(image, size))
    best, found = -1.0, _box((0, 0, 0), size)
    for spread, box in _spreads(image, size, starts):
        if spread > best:
            best, found = spread, box
    return found


def typical_box(image: MendedImage, size: Shape) -> Box:
    """Box of a given size where the image varies as much as in half of those that are not empty."""
    found = sorted(_spreads(image, size, _spread_starts(image, size)), key=operator.itemgetter(0))
    if not found:
        return _box((0, 0, 0), size)
    least = LIVELY * found[-1][0]
    lively = [box for spread, box in found if spread >= least]
    return lively[len(lively) // 2]


def _spread_starts(image: MendedImage, size: Shape) -> Iterable[Shape]:
    """Starts of boxes from all over an image."""
    z, y, x = (_positions(*axis) for axis in zip(image.shape, size, strict=True))
    return itertools.product(z, y, x)


def _spreads(
    image: MendedImage, size: Shape, starts: Iterable[Shape]
) -> Iterator[tuple[float, Box]]:
    """How much an image varies in boxes, of which some are looked over as they are all fill."""
    limit = np.float32(image.defects.hot_above)
    boxes = [_box(start, size) for start in starts]
    per_axis = _per_axis(size, LOOKED_AT)

    def part(first: int, last: int) -> list[tuple[float, Box]]:
        found = []
        for box in boxes[first:last]:
            sample = image.crop(box).sample(per_axis)
            if sample.size:
                ranks = [int(share * sample.size) for share in (0.3, 0.9)]
                low, high = np.partition(np.minimum(sample, limit), ranks)[ranks]
                found.append((float(high - low), box))
        return found

    voxels = len(boxes) * min(math.prod(size), LOOKED_AT)
    return itertools.chain.from_iterable(in_threads(len(boxes), part, voxels=voxels))


def _per_axis(size: Shape, voxels: int) -> int:
    """Steps along each axis of a box, if so many voxels of it are looked at."""
    return round(math.pow(voxels, 1 / max(1, sum(n > 1 for n in size))))


def _box(start: Shape, size: Shape) -> Box:
    z, y, x = (slice(a, a + n) for a, n in zip(start, size, strict=True))
    return z, y, x


def _liveliest(image: MendedImage, size: Shape) -> Iterator[Shape]:
    """Starts of boxes around the places where the overview varies most."""
    from scipy import ndimage  # slow to load

    defects = image.defects
    if not defects.overview.size:
        return
    known = (1, defects.overview_step, defects.overview_step)
    per_axis = _per_axis(size, LIVELY_LOOKED_AT)
    step = [max(k, n // per_axis // k * k) for n, k in zip(size, known, strict=True)]
    part = tuple(
        slice(a // k, -(-b // k), s // k)
        for a, b, k, s in zip(image.start, image.stop, known, step, strict=True)
    )
    seen = np.minimum(defects.overview[part], np.float32(defects.hot_above))
    kept = seen if defects.fill is None else seen[seen != defects.fill]
    if not kept.size:
        return
    if kept.size < seen.size:
        seen = np.where(seen == defects.fill, np.median(kept), seen)
    window = [max(1, round(n / s)) for n, s in zip(size, step, strict=True)]
    seen = seen - seen.mean()  # squares of small numbers keep more digits
    mean = ndimage.uniform_filter(seen, window)
    spread = ndimage.uniform_filter(seen * seen, window) - mean * mean
    tops = np.argwhere(spread == ndimage.maximum_filter(spread, window))
    order = np.argsort(-spread[tuple(tops.T)], kind="stable")
    for top in tops[order[:LIVELIEST]]:
        z, y, x = (
            int(min(max(0, at * s - n // 2), length - n))
            for at, s, n, length in zip(top, step, size, image.shape, strict=True)
        )
        yield z, y, x


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


def _needed(length: int, size: int) -> int:
    """How many boxes cover an axis, each half of the next."""
    return 1 + math.ceil(2 * max(0, length - size) / size)


def _positions(length: int, size: int) -> list[int]:
    """A few starts, evenly spread."""
    span = length - size
    count = min(MOST_POSITIONS, _needed(length, size))
    return [round(i * span / max(1, count - 1)) for i in range(count)] if count > 1 else [span // 2]
