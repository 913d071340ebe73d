"""Local brightness of an image: what is background here, and how bright is a cell here.

Two global percentiles fail on ordinary stacks: one speck of dirt, a bright slice, a side that gets
more light, corners filled with zeros or a wide empty field move them. Here the background is
followed as a low quantile of coarse block means, and the contrast as the typical height of the
*peaks* above it. Peaks are counted, not voxels: a field around the cells adds none, dirt adds a few
among many, haze adds low ones only. Noise cannot pass for signal, because a peak has to stand out
of the blocks' own noise and the contrast never falls below a multiple of it.

Everything is measured on blocks of a quarter of a cell and kept on a grid of one node per cell, so
that memory stays small, and interpolated linearly, so that tiles agree. How high a peak is depends
on how blocks happen to lie on it, so that a wider field around the same cells would make them
brighter or darker: two lattices of blocks look, each in the middle of the other's blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.grid.brightness_kernels import (
    CALM,
    MOST_IN_WINDOW,
    NODE_STEP,
    add_plane,
    mark_peaks,
    normalise_planes,
    window_quantiles,
)
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.specks import are_wide, one_of_the_highest, specks
from cellrt.threads import in_threads

FloatArray = NDArray[np.float32]
Indices = NDArray[np.int64]
Between = tuple[Indices, Indices, FloatArray]

# Blocks per cell diameter; as many lie between two nodes of the coarse grid.
BLOCKS_PER_CELL = 4
# Noise of block means: second differences of neighbours, of which slow changes of the light are no
# part, and of these a low quantile, in the calmest quarter of the windows, of which cells are
# little part. For normal noise that quantile is 0.78 of the standard deviation.
NOISE_SPREAD = 0.78
# More light brings more noise, but what exceeds the calm part's noise by more is structure.
NOISE_RANGE = 4.0
# A peak is so many times the noise above background.
PEAK_NOISE = 8.0
# Lattices of blocks in which peaks are looked for. Of ten ways to lie on an embryo, the contrast
# differed by 4.3 % with one, by 1.7 % with two, and by 1.6 % with eight.
LATTICES = 2
# The reference is the height at which half of the sum of all peaks' heights lies. What is higher
# than 1.5 times `one_of_the_highest` counts no more than that: dirt is bright.
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
PLANES_AT_ONCE = 16


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
        Peaks above noise, in both lattices.
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
        layers, rows, columns = (
            _between(np.arange(first, first + length), self.step, nodes)
            for first, length, nodes in zip(start, image.shape, self.background.shape, strict=True)
        )
        # Background and contrast of some planes at a time: they are small, and calls take longer.
        for first in range(0, len(image), PLANES_AT_ONCE):
            part = slice(first, first + PLANES_AT_ONCE)
            dark, bright = (
                _of_rows(nodes, part, layers, rows).astype(np.float32)
                for nodes in (self.background, self.contrast)
            )
            planes = image[part].astype(np.float32, copy=False)
            normalise_planes(planes, dark, bright, *columns, result[part])
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
        self._lattices = [
            _Lattice(number * self.block // LATTICES, self.block, shape)
            for number in range(LATTICES)
        ]

    def add(
        self, z: int, plane: NDArray[np.generic], fill: NDArray[np.bool_] | None = None
    ) -> None:
        """Take in one plane (y, x); voxels where ``fill`` is true take no part."""
        fill = _NO_FILL if fill is None else fill
        grey: FloatArray = plane.astype(np.float32, copy=False)
        for lattice in self._lattices:
            lattice.add(z, grey, fill)

    def measure(self, reference: float | None = None) -> Brightness:
        """Background and contrast from all planes added so far.

        Parameters
        ----------
        reference : float, optional
            Typical height of peaks, where it is known from a larger image.
        """
        means = self._lattices[0].means()
        first, changes = _window_quantiles(means)
        background = _smooth(first)
        # A slope of the light widens the windows' distributions; without it the quantile is right.
        background += _smooth(_window_quantiles(_above(means, background))[0])
        local, noise = _noise(changes)
        found = [lattice.peaks(background, PEAK_NOISE * local) for lattice in self._lattices]
        where, heights, wide = (np.concatenate(each) for each in zip(*found, strict=True))
        clean = ~specks(heights, wide)
        where, heights = where[clean], heights[clean]
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


class _Lattice:
    """Sums over the blocks of an image, which begin at voxel `start` along every axis."""

    def __init__(self, start: int, block: int, shape: tuple[int, int, int]) -> None:
        self.start, self.block = start, block
        blocks = tuple(max(1, -(-(n - start) // block)) for n in shape)
        self._sums = np.zeros(blocks, np.float64)
        self._counts = np.zeros(blocks, np.int32)

    def add(self, z: int, plane: FloatArray, fill: NDArray[np.bool_]) -> None:
        """Take in one plane (y, x)."""
        if z >= self.start:
            layer = (z - self.start) // self.block
            sums, counts = self._sums[layer], self._counts[layer]
            add_plane(plane, fill, self.start, self.block, sums, counts)

    def means(self) -> FloatArray:
        """Mean of each block, NaN where too little is known."""
        # Blocks of which more than three quarters are missing or fill say nothing; the others
        # compare with each other although they differ in size.
        full = self.block**3 if self._counts.size else 1
        known = self._counts >= max(1, min(full, int(self._counts.max(initial=1))) // 4)
        means = np.where(known, self._sums / np.maximum(self._counts, 1), np.nan)
        return means.astype(np.float32)

    def peaks(
        self, background: FloatArray, least: FloatArray
    ) -> tuple[Indices, FloatArray, NDArray[np.bool_]]:
        """Blocks higher than all around them, heights above the background, and which are wide."""
        means = self.means()
        above = _above(means, background, self.start / self.block)
        marked = np.zeros(means.shape, np.bool_)
        mark_peaks(means, above, least, marked)
        where, heights = np.argwhere(marked), above[marked]
        return where, heights, are_wide(above, where, heights)


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
    weights = np.minimum(ordered, HIGHEST_FACTOR * one_of_the_highest(ordered))
    middle = np.searchsorted(np.cumsum(weights), weights.sum() / 2)
    return float(ordered[min(middle, len(ordered) - 1)])


_NO_FILL = np.zeros((0, 0), np.bool_)


def _contrast(
    nodes: tuple[int, ...], where: Indices, heights: FloatArray, reference: float
) -> FloatArray:
    """Typical height of peaks around every node; the reference where there are none."""
    from scipy import ndimage  # slow to load, and not needed by every model

    pulls = np.zeros(nodes, np.float32)
    counts = np.zeros(nodes, np.float32)
    cells = heights > HAZE * reference
    place = tuple(np.minimum(where[cells, axis] // NODE_STEP, nodes[axis] - 1) for axis in range(3))
    limit = math.log(LARGEST_PULL)
    each = np.float32(1 / LATTICES)
    np.add.at(pulls, place, each * np.clip(np.log(heights[cells] / reference), -limit, limit))
    np.add.at(counts, place, each)
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


def _window_quantiles(means: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Low quantiles around every node of block means and of their second differences, or NaN."""
    nodes = tuple(-(-n // NODE_STEP) for n in means.shape)
    background, changes = (np.full(nodes, np.nan, np.float32) for _ in range(2))
    work = partial(window_quantiles, means.reshape(-1), means.shape, background, changes)
    in_threads(nodes[0], work, voxels=MOST_IN_WINDOW * background.size)
    return background, changes


def _above(means: FloatArray, background: FloatArray, shift: float = 0.0) -> FloatArray:
    """Means of blocks, which lie `shift` blocks behind, less the background there; NaN stays."""
    layers, rows, (low, high, weight) = (
        _between(np.arange(length) + shift, NODE_STEP, nodes)
        for length, nodes in zip(means.shape, background.shape, strict=True)
    )
    nodes = _mixed(background[..., low], background[..., high], weight)
    above = np.empty(means.shape, np.float32)
    # Plane by plane: there may be as many blocks as fit into memory.
    for z, plane in enumerate(means):
        above[z] = plane - _of_rows(nodes, slice(z, z + 1), layers, rows)[0]
    return above


def _between(places: NDArray[Any], step: int, nodes: int) -> Between:
    """Nodes around places along an axis, and the weights of the second ones."""
    at = np.clip((places - (step - 1) / 2) / step, 0.0, nodes - 1.0)
    low = at.astype(np.int64)
    return low, np.minimum(low + 1, nodes - 1), (at - low).astype(np.float32)


def _of_rows(
    nodes: NDArray[Any], planes: slice, layers: Between, rows: Between
) -> NDArray[np.float64]:
    """Values at the rows of some planes, for what nodes there are along x."""
    low, high, weight = rows
    before, after = (
        _mixed(nodes[at[planes][:, None], low], nodes[at[planes][:, None], high], weight[:, None])
        for at in layers[:2]
    )
    return _mixed(before, after, layers[2][planes, None, None])


def _mixed(first: NDArray[Any], second: NDArray[Any], weight: FloatArray) -> NDArray[np.float64]:
    """Values between two, computed with twice as many digits."""
    mixed: NDArray[np.float64] = first * np.subtract(1, weight, dtype=np.float64) + second * weight
    return mixed
