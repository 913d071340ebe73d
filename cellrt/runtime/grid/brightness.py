"""Local brightness of an image: what is background here, and how bright is a cell here.

Two global percentiles fail on ordinary stacks: one speck of dirt, a bright slice, a side that gets
more light, corners filled with zeros or a wide empty field move them. Here the background is
followed as a low quantile of coarse block means, and the contrast as the typical height of the
*peaks* above it. Peaks are counted, not voxels: a field around the cells adds none, dirt adds a few
among many, haze adds low ones only. Noise cannot pass for signal, because a peak has to stand out
of the blocks' own noise and the contrast never falls below a multiple of it.

Everything is measured on blocks of a quarter of a cell and kept on a grid of one node per cell, so
that memory stays small, and interpolated linearly, so that tiles agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.grid.intensity import IntensityRange

FloatArray = NDArray[np.float32]

# Blocks per cell diameter, and blocks from one node of the coarse grid to the next: one cell.
BLOCKS_PER_CELL = 4
NODE_STEP = 4
# The background is this quantile of the block means within 1.5 cells.
BACKGROUND_QUANTILE = 0.1
WINDOW_BLOCKS = 6
WINDOW_STEP = 2
FEWEST_BLOCKS = 8
# Noise of block means: second differences of neighbours, of which slow changes of the light are no
# part, and of these a low quantile, in the calmest quarter of the windows, of which cells are
# little part. For normal noise that quantile is 0.78 of the standard deviation.
CALM = 0.25
NOISE_SPREAD = 0.78
# More light brings more noise, but what exceeds the calm part's noise by more is structure.
NOISE_RANGE = 4.0
# A peak is the largest block within this many blocks, this many times the noise above background,
# and stands out of the median within one cell by this share of its height: noise on haze does not.
PEAK_REACH = 2
PEAK_NOISE = 8.0
PROMINENCE_REACH = 4
PROMINENCE = 0.4
# The reference is the height at which half of the sum of all peaks' heights lies. What is higher
# than 1.5 times the 8 % highest (at least the third) counts no more than that: dirt is bright.
HIGHEST_SHARE = 0.08
HIGHEST_LEAST = 3
HIGHEST_FACTOR = 1.5
# Peaks below this share of the reference are haze. Others pull the contrast of their surroundings
# (a Gaussian of 1.5 cells) towards their own height, at most by this factor each, against one peak
# of the reference's height.
HAZE = 0.25
LARGEST_PULL = 6.0
PULL_NODES = 1.5
# The contrast is at least so many times the noise of blocks (white noise of a voxel is eight times
# that of a block of 4 x 4 x 4), and in an image without any peak twice that.
NOISE_FLOOR = 10.0
# Values below the background are kept down to here, in units of the contrast.
DARKEST = -0.5


@dataclass(frozen=True)
class Brightness:
    """Background and contrast of an image on a coarse grid, in grey values.

    Attributes
    ----------
    step : int
        Voxels from one node to the next; the first node lies at ``(step - 1) / 2``.
    background, contrast : ndarray, float32, shape (nz, ny, nx)
        Grey value that becomes 0, and grey values above it that become 1.
    reference : float
        Typical height of a cell's peak above its background in the whole image; 0 without peaks.
    noise : float
        Standard deviation of block means that noise causes.
    peaks : int
        Peaks above noise.
    """

    step: int
    background: FloatArray
    contrast: FloatArray
    reference: float
    noise: float
    peaks: int

    def normalise(
        self,
        image: NDArray[np.generic],
        start: tuple[int, int, int] = (0, 0, 0),
        fill: NDArray[np.bool_] | None = None,
    ) -> FloatArray:
        """Map background to 0 and typical peaks of cells to about 1, softly clipped.

        Above 1 the value grows as ``1 + log(value)``; below 0 it is clipped at -0.5.

        Parameters
        ----------
        image : ndarray, any real dtype, shape (z, y, x)
            A box of the image that was measured.
        start : (int, int, int)
            Where the box lies.
        fill : ndarray of bool, same shape, optional
            Voxels that are no image: they become 0.

        Returns
        -------
        ndarray, float32, same shape
        """
        result = np.empty(image.shape, np.float32)
        for z, plane in enumerate(image):
            _normalise_plane(
                plane.astype(np.float32, copy=False),
                *_between(self.background.shape[0], self.step, start[0] + z),
                self.background,
                self.contrast,
                self.step,
                start[1],
                start[2],
                result[z],
            )
        if fill is not None:
            result[fill] = 0
        return result


def uniform(intensity: IntensityRange) -> Brightness:
    """Brightness that is the same everywhere: grey values chosen by a user."""
    contrast = intensity.high - intensity.low
    one = np.ones((1, 1, 1), np.float32)
    return Brightness(
        1, one * np.float32(intensity.low), one * np.float32(contrast), contrast, 0.0, 0
    )


class BrightnessMeter:
    """Measures :class:`Brightness` plane by plane.

    Parameters
    ----------
    shape : (int, int, int)
        Shape (z, y, x) of the image on the model's grid.
    diameter_voxels : float
        Cell diameter on that grid.
    """

    def __init__(self, shape: tuple[int, int, int], diameter_voxels: float) -> None:
        self.block = max(1, round(diameter_voxels / BLOCKS_PER_CELL))
        self.shape = shape
        blocks = tuple(-(-n // self.block) for n in shape)
        self._sums = np.zeros(blocks, np.float64)
        self._counts = np.zeros(blocks, np.int32)

    def add(
        self, z: int, plane: NDArray[np.generic], fill: NDArray[np.bool_] | None = None
    ) -> None:
        """Take in one plane (y, x); voxels where ``fill`` is true take no part."""
        layer = z // self.block
        fill = _NO_FILL if fill is None else fill
        _add_plane(
            plane.astype(np.float32, copy=False),
            fill,
            self.block,
            self._sums[layer],
            self._counts[layer],
        )

    def measure(self, reference: float | None = None) -> Brightness:
        """Background and contrast from all planes added so far.

        Parameters
        ----------
        reference : float, optional
            Typical height of peaks, where it is known from a larger image.
        """
        # Blocks of which more than three quarters are missing or fill say nothing; the others
        # compare with each other although they differ in size.
        full = self.block**3 if self._counts.size else 1
        known = self._counts >= max(1, min(full, int(self._counts.max(initial=1))) // 4)
        means = np.where(known, self._sums / np.maximum(self._counts, 1), np.nan).astype(np.float32)
        first, changes = _window_quantiles(means)
        background = _smooth(first)
        # A slope of the light widens the windows' distributions; without it the quantile is right.
        background += _smooth(_window_quantiles(_above(means, background))[0])
        above = _above(means, background)
        local, noise = _noise(changes)
        where, heights = _peaks(means, above, PEAK_NOISE * local)
        if reference is None:
            reference = reference_height(heights)
        if reference > 0:
            contrast = _contrast(background.shape, where, heights, reference)
            contrast = np.maximum(contrast, np.float32(NOISE_FLOOR * noise))
        else:
            level = 2 * NOISE_FLOOR * noise or 1.0
            contrast = np.full(background.shape, level, np.float32)
        return Brightness(
            self.block * NODE_STEP, background, contrast, reference, noise, len(heights)
        )


def measure_brightness(
    planes: Iterable[tuple[int, NDArray[np.generic]]],
    shape: tuple[int, int, int],
    diameter_voxels: float,
) -> Brightness:
    """Measure an image that comes plane by plane, as ``(z, plane)``."""
    meter = BrightnessMeter(shape, diameter_voxels)
    for z, plane in planes:
        meter.add(z, plane)
    return meter.measure()


def reference_height(heights: FloatArray) -> float:
    """Typical height of cells' peaks among peaks of cells, haze and dirt; 0 without any."""
    if not len(heights):
        return 0.0
    ordered = np.sort(heights).astype(np.float64)
    highest = min(len(ordered), max(HIGHEST_LEAST, int(HIGHEST_SHARE * len(ordered))))
    weights = np.minimum(ordered, HIGHEST_FACTOR * ordered[-highest])
    middle = np.searchsorted(np.cumsum(weights), weights.sum() / 2)
    return float(ordered[min(middle, len(ordered) - 1)])


_NO_FILL = np.zeros((0, 0), np.bool_)


def _contrast(
    nodes: tuple[int, ...], where: NDArray[np.int64], heights: FloatArray, reference: float
) -> FloatArray:
    """Typical height of peaks around every node; the reference where there are none."""
    from scipy import ndimage  # slow to load, and not needed by every model

    pulls = np.zeros(nodes, np.float32)
    counts = np.zeros(nodes, np.float32)
    cells = heights > HAZE * reference
    place = tuple(np.minimum(where[cells, axis] // NODE_STEP, nodes[axis] - 1) for axis in range(3))
    limit = math.log(LARGEST_PULL)
    np.add.at(pulls, place, np.clip(np.log(heights[cells] / reference), -limit, limit))
    np.add.at(counts, place, 1)
    # A Gaussian with a height of 1: it counts peaks.
    scale = np.float32((2 * math.pi) ** 1.5 * PULL_NODES**3)
    pulls, counts = (
        ndimage.gaussian_filter(a, PULL_NODES, mode="constant") * scale for a in (pulls, counts)
    )
    return np.asarray(reference * np.exp(pulls / (counts + 1)), np.float32)


def _noise(changes: FloatArray) -> tuple[FloatArray, float]:
    """Noise of block means at every node, and in the calm part of the image."""
    from scipy import ndimage  # slow to load, and not needed by every model

    known = changes[np.isfinite(changes)]
    calm = float(np.quantile(known, CALM)) / NOISE_SPREAD if known.size else 0.0
    # The calmest neighbour has the least of cells in it; where all are full of cells, a limit.
    local = ndimage.minimum_filter(_filled(changes), 3, mode="nearest") / NOISE_SPREAD
    return np.clip(local, calm, NOISE_RANGE * calm), calm


def _smooth(values: FloatArray) -> FloatArray:
    from scipy import ndimage  # slow to load, and not needed by every model

    return np.asarray(ndimage.gaussian_filter(_filled(values), 0.7, mode="nearest"))


def _filled(values: FloatArray) -> FloatArray:
    """Give nodes without a value that of the nearest node that has one."""
    from scipy import ndimage  # slow to load, and not needed by every model

    missing = ~np.isfinite(values)
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def _between(nodes: int, step: int, z: int) -> tuple[int, int, np.float32]:
    """Nodes around a plane and the weight of the second."""
    place = min(max((z - (step - 1) / 2) / step, 0.0), nodes - 1.0)
    low = int(place)
    return low, min(low + 1, nodes - 1), np.float32(place - low)


@compiled
def _add_plane(plane, fill, block, sums, counts):  # type: ignore[no-untyped-def]
    for y in range(plane.shape[0]):
        row = y // block
        for x in range(plane.shape[1]):
            if fill.size and fill[y, x]:
                continue
            sums[row, x // block] += plane[y, x]
            counts[row, x // block] += 1


@compiled
def _window_quantiles(means):  # type: ignore[no-untyped-def]
    """Low quantiles around every node of block means and of their second differences.

    NaN where nothing is known.
    """
    nz = (means.shape[0] + NODE_STEP - 1) // NODE_STEP
    ny = (means.shape[1] + NODE_STEP - 1) // NODE_STEP
    nx = (means.shape[2] + NODE_STEP - 1) // NODE_STEP
    background = np.full((nz, ny, nx), np.nan, np.float32)
    changes = np.full((nz, ny, nx), np.nan, np.float32)
    most = (2 * WINDOW_BLOCKS // WINDOW_STEP + 2) ** 3
    found = np.empty(most, np.float32)
    differences = np.empty(3 * most, np.float32)
    for k in range(nz):
        z0 = max(0, k * NODE_STEP + NODE_STEP // 2 - WINDOW_BLOCKS)
        z1 = min(means.shape[0], k * NODE_STEP + NODE_STEP // 2 + WINDOW_BLOCKS)
        for j in range(ny):
            y0 = max(0, j * NODE_STEP + NODE_STEP // 2 - WINDOW_BLOCKS)
            y1 = min(means.shape[1], j * NODE_STEP + NODE_STEP // 2 + WINDOW_BLOCKS)
            for i in range(nx):
                x0 = max(0, i * NODE_STEP + NODE_STEP // 2 - WINDOW_BLOCKS)
                x1 = min(means.shape[2], i * NODE_STEP + NODE_STEP // 2 + WINDOW_BLOCKS)
                n = 0
                m = 0
                for z in range(z0, z1, WINDOW_STEP):
                    for y in range(y0, y1, WINDOW_STEP):
                        for x in range(x0, x1, WINDOW_STEP):
                            value = means[z, y, x]
                            if np.isnan(value):
                                continue
                            found[n] = value
                            n += 1
                            for axis in range(3):
                                change = _second_difference(means, z, y, x, axis)
                                if not np.isnan(change):
                                    differences[m] = abs(change)
                                    m += 1
                if n >= min(FEWEST_BLOCKS, means.size):
                    background[k, j, i] = _quantile(found[:n], BACKGROUND_QUANTILE)
                    if m:
                        changes[k, j, i] = _quantile(differences[:m], CALM)
    return background, changes


@compiled
def _second_difference(means, z, y, x, axis):  # type: ignore[no-untyped-def]
    place = (z, y, x)[axis]
    if place == 0 or place == means.shape[axis] - 1:
        return np.nan
    if axis == 0:
        return means[z - 1, y, x] - 2 * means[z, y, x] + means[z + 1, y, x]
    if axis == 1:
        return means[z, y - 1, x] - 2 * means[z, y, x] + means[z, y + 1, x]
    return means[z, y, x - 1] - 2 * means[z, y, x] + means[z, y, x + 1]


@compiled
def _quantile(values, share):  # type: ignore[no-untyped-def]
    """Quantile by linear interpolation; sorts `values`."""
    values.sort()
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


@compiled
def _above(means, background):  # type: ignore[no-untyped-def]
    """Block means less the interpolated background; NaN stays."""
    above = np.empty(means.shape, np.float32)
    for z in range(means.shape[0]):
        bz, cz, wz = _node_between(z, background.shape[0])
        for y in range(means.shape[1]):
            by, cy, wy = _node_between(y, background.shape[1])
            for x in range(means.shape[2]):
                bx, cx, wx = _node_between(x, background.shape[2])
                p = background[bz, by, bx] * (1 - wx) + background[bz, by, cx] * wx
                q = background[bz, cy, bx] * (1 - wx) + background[bz, cy, cx] * wx
                r = background[cz, by, bx] * (1 - wx) + background[cz, by, cx] * wx
                s = background[cz, cy, bx] * (1 - wx) + background[cz, cy, cx] * wx
                low = (p * (1 - wy) + q * wy) * (1 - wz) + (r * (1 - wy) + s * wy) * wz
                above[z, y, x] = means[z, y, x] - low
    return above


@compiled
def _peaks(means, above, least):  # type: ignore[no-untyped-def]
    """Blocks higher than all around them and than the node's `least` above the background."""
    where = []
    heights = []
    for z in range(means.shape[0]):
        for y in range(means.shape[1]):
            for x in range(means.shape[2]):
                value = above[z, y, x]
                lowest = least[z // NODE_STEP, y // NODE_STEP, x // NODE_STEP]
                # NaN is neither above nor below.
                if not (value > lowest and value > 0 and _is_highest(above, z, y, x, value)):
                    continue
                if means[z, y, x] - _median_around(means, z, y, x) > PROMINENCE * value:
                    where.append((z, y, x))
                    heights.append(value)
    places = np.empty((len(where), 3), np.int64)
    for i in range(len(where)):
        places[i, 0], places[i, 1], places[i, 2] = where[i]
    return places, np.array([np.float32(h) for h in heights], np.float32)


@compiled
def _is_highest(above, z, y, x, value):  # type: ignore[no-untyped-def]
    """Of equal neighbours the last counts, so that a plateau is one peak."""
    for c in range(max(0, z - PEAK_REACH), min(above.shape[0], z + PEAK_REACH + 1)):
        for b in range(max(0, y - PEAK_REACH), min(above.shape[1], y + PEAK_REACH + 1)):
            for a in range(max(0, x - PEAK_REACH), min(above.shape[2], x + PEAK_REACH + 1)):
                other = above[c, b, a]
                if other > value or (other == value and (c, b, a) > (z, y, x)):
                    return False
    return True


@compiled
def _median_around(means, z, y, x):  # type: ignore[no-untyped-def]
    reach = PROMINENCE_REACH
    found = np.empty((2 * reach + 1) ** 3, np.float32)
    n = 0
    for c in range(max(0, z - reach), min(means.shape[0], z + reach + 1)):
        for b in range(max(0, y - reach), min(means.shape[1], y + reach + 1)):
            for a in range(max(0, x - reach), min(means.shape[2], x + reach + 1)):
                if not np.isnan(means[c, b, a]):
                    found[n] = means[c, b, a]
                    n += 1
    return np.median(found[:n])


@compiled
def _node_between(block, nodes):  # type: ignore[no-untyped-def]
    place = min(max((block - (NODE_STEP - 1) / 2) / NODE_STEP, 0.0), nodes - 1.0)
    low = int(place)
    return low, min(low + 1, nodes - 1), np.float32(place - low)


@compiled
def _normalise_plane(plane, low, high, weight, background, contrast, step, y0, x0, out):  # type: ignore[no-untyped-def]
    """Normalise one plane of a box that starts at (y0, x0); nodes are interpolated per row."""
    ny, nx = background.shape[1], background.shape[2]
    dark = np.empty(nx, np.float32)
    bright = np.empty(nx, np.float32)
    for y in range(plane.shape[0]):
        v = min(max((y0 + y - (step - 1) / 2) / step, 0.0), ny - 1.0)
        j = int(v)
        t = np.float32(v - j)
        k = min(j + 1, ny - 1)
        for i in range(nx):
            p = background[low, j, i] * (1 - t) + background[low, k, i] * t
            q = background[high, j, i] * (1 - t) + background[high, k, i] * t
            dark[i] = p * (1 - weight) + q * weight
            p = contrast[low, j, i] * (1 - t) + contrast[low, k, i] * t
            q = contrast[high, j, i] * (1 - t) + contrast[high, k, i] * t
            bright[i] = p * (1 - weight) + q * weight
        for x in range(plane.shape[1]):
            u = min(max((x0 + x - (step - 1) / 2) / step, 0.0), nx - 1.0)
            i = int(u)
            s = np.float32(u - i)
            h = min(i + 1, nx - 1)
            value = plane[y, x] - (dark[i] * (1 - s) + dark[h] * s)
            value /= bright[i] * (1 - s) + bright[h] * s
            if value > 1:
                value = 1 + np.log(value)
            elif value < DARKEST:
                value = np.float32(DARKEST)
            out[y, x] = value
