"""What is wrong with single pixels, slices and corners of an image, found before it is resampled.

Three accidents have nothing to do with the specimen, and are mended or left out:

- **Fill**: voxels that are no image. Deskewing, rotating, stitching and padding leave corners of
  one exact value, most often 0, below everything that a camera with an offset records.
- **Slices** that differ from their neighbours by a factor, in light and in noise, or that are lost.
- **Hot pixels**, see `hot_pixels.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.grid.hot_pixels import HOT_QUANTILE
from cellrt.runtime.grid.quantiles import quantiles
from cellrt.runtime.image.source import Voxels
from cellrt.threads import in_threads

FloatArray = NDArray[np.float32]

# Pixels of a slice that are looked at, about: enough for quantiles to a percent. Of many slices
# fewer each, not to hold too many.
SAMPLE_PIXELS = 20_000
FEWEST_PIXELS = 4_000
ALL_PIXELS = 2_000_000
# Grey values up to here, and the steps between them, are kept well by float32; beyond, the smallest
# is taken off. Of images that are taken as they are so many planes are asked.
LARGEST_EXACT = 2.0**20
# Finding quantiles of a pixel takes as long as a simple pass over so many voxels.
WORK_PER_PIXEL = 16
BASE_PLANES = 8
# Fill makes up at least this share of the sample. Between it and the darkest tenth of the image lie
# at least so many steps of grey, and in the darker half of that gap no more than this share of the
# image: interpolation at the border of the fill leaves some. The gap is wider than the contrast, or
# so many times the way from the darkest tenth to the median, fewer where it is all but empty.
LEAST_FILL = 2e-3
GAP_STEPS = 4
GAP_SHARE = 0.05
GAP_FACTOR, EMPTY_GAP_FACTOR, EMPTY_GAP_SHARE = 3, 2, 1e-3
# Pieces of image in it, along a line, are longer than this many pixels or this share of the width.
# Shorter ones are cells whose background somebody set to one value.
SHORT_PIECE, SHORT_SHARE = 24, 0.3
# A slice is mended where its noise differs from that of its neighbours, which agree, and its
# contrast too, the same way, by these factors. Where the neighbours do not agree in contrast, as at
# the poles of cells, the noise has to differ by more and alone tells the gain.
NOISE_FACTOR = 1.25
CONTRAST_FACTOR = 1.5
NOISE_ALONE_FACTOR = 2.0
NEIGHBOURS_AGREE = 1.6
# More lost slices than this in a row are no accident, and the next image is too far away.
MOST_LOST = 3
NEIGHBOURS = 2
LEAST_SLICES = 5
LEAST_SATURATED = 20


@dataclass(frozen=True)
class Defects:
    """What was found, and how to mend it.

    Attributes
    ----------
    fill : float or None
        Grey value of voxels that are no image.
    fill_share : float
        Share of the sampled pixels that have it.
    gains, levels, targets : ndarray, float32, shape (z,)
        A slice is mended as ``(slice - level) / gain + target``; gain 1 where nothing is wrong.
    lost : tuple of int
        Slices of one grey value between others, for which their neighbours stand in.
    hot_above : float
        Grey value above which single pixels are looked at.
    saturated : float
        Share of the sampled pixels at the largest value, where that is a plateau; else 0.
    stand_ins : dict
        Of each lost slice, those that stand in for it.
    constant : bool
        All that is not fill has one grey value.
    base : float
        Taken off all grey values, so that float32 tells them apart; all others here are less it.
    overview : ndarray, float32, shape (z, y, x)
        Every slice as it is, but of its rows and columns one of `overview_step` each. Empty where
        nothing was looked at.
    """

    fill: float | None
    fill_share: float
    gains: FloatArray
    levels: FloatArray
    targets: FloatArray
    lost: tuple[int, ...]
    hot_above: float
    saturated: float
    stand_ins: dict[int, tuple[int, ...]] = field(default_factory=dict)
    constant: bool = False
    base: float = 0.0
    overview: FloatArray = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.float32), repr=False, compare=False
    )
    overview_step: int = 1

    @property
    def mended(self) -> tuple[int, ...]:
        """Slices whose brightness is corrected."""
        return tuple(int(z) for z in np.flatnonzero(self.gains != 1))

    def hot_in(self, z: int) -> float:
        """Grey value of a slice above which its pixels are looked at."""
        above = (self.hot_above - float(self.targets[z])) * float(self.gains[z])
        return above + float(self.levels[z])


def find_defects(image: Voxels) -> Defects:
    """Look at every slice of an image (z, y, x), at some twenty thousand pixels of each.

    Parameters
    ----------
    image : ndarray or VoxelSource, any real dtype, shape (z, y, x)
        Read slice by slice.
    """
    depth = image.shape[0]
    pixels = max(FEWEST_PIXELS, min(SAMPLE_PIXELS, ALL_PIXELS // depth))
    samples = [_sample(np.asarray(image[z]), pixels) for z in range(depth)]
    everything = np.concatenate([pairs.ravel() for pairs in samples])
    darkest = everything.min()
    share = _share_of_fill(everything)
    if share and _is_background(samples, darkest, image.shape[2]):
        share = 0.0
    if share:
        everything = everything[everything != darkest]
    base = _base(everything)  # of the image: fill lies far below it
    everything = computable(everything, base)
    fill = float(computable(np.array([darkest]), base)[0]) if share else None
    samples = [computable(pairs, base) for pairs in samples]
    step = _sampling_step(image.shape[1:], pixels)
    overview = np.stack([pairs[:, 0] for pairs in samples]).astype(np.float32)
    gains, levels, targets, lost = _find_slices(samples, fill)
    top, bottom = everything.max(), float(everything.min())
    at_top = float(np.mean(everything == top))
    near_top = float(np.mean(everything >= float(top) - (float(top) - bottom) * 0.01)) - at_top
    # A plateau at a value that counters and cameras end with, and more than a pixel or two.
    at_limit = _is_limit(float(top) + base) and at_top * everything.size >= LEAST_SATURATED
    stand_ins = {z: _nearest_kept(z, lost, depth) for z in lost}
    return Defects(
        fill,
        share,
        gains,
        levels,
        targets,
        lost,
        float(quantiles(everything, [HOT_QUANTILE])[0]),
        at_top if at_limit and at_top > max(1e-4, near_top) else 0.0,
        {z: others for z, others in stand_ins.items() if others},
        constant=bool(top == everything.min()),
        base=base,
        overview=overview.reshape(depth, -(-image.shape[1] // step), -1),
        overview_step=step,
    )


def no_defects(image: Voxels) -> Defects:
    """What there is to say of an image whose voxels are taken as they are."""
    depth = image.shape[0]
    zeros = np.zeros(depth, np.float32)
    nothing = Defects(None, 0.0, np.ones(depth, np.float32), zeros, zeros, (), np.inf, 0.0)
    if np.dtype(image.dtype).itemsize < 4:  # such values hold nothing that float32 does not
        return nothing
    step = max(1, depth // BASE_PLANES)
    planes = [_sample(np.asarray(image[z]), FEWEST_PIXELS) for z in range(0, depth, step)]
    return replace(nothing, base=_base(np.concatenate([p.ravel() for p in planes])))


def _is_limit(value: float) -> bool:
    """Whether a grey value is the largest of 8, 10, 12, 14 or 16 bits."""
    return value in {2.0**bits - 1 for bits in (8, 10, 12, 14, 16)}


def _sampling_step(shape: tuple[int, ...], pixels: int) -> int:
    step = max(1, round(math.sqrt(shape[0] * shape[1] / pixels)))
    return step + int(step > 1 and step % 2 == 0)  # lines that alternate are seen in equal numbers


def _sample(plane: NDArray[Any], pixels: int) -> NDArray[Any]:
    """Pairs of neighbours along x from all over a slice, shape (n, 2)."""
    step, width = _sampling_step(plane.shape, pixels), plane.shape[1]
    left = plane[::step, : max(1, width - 1) : step]
    right = plane[::step, 1::step] if width > 1 else left
    count = min(left.shape[1], right.shape[1])
    return np.stack([left[:, :count].ravel(), right[:, :count].ravel()], axis=1)


def _share_of_fill(sample: NDArray[Any]) -> float:
    """Share of the darkest value, if that is no image."""
    darkest = sample.min()
    image = sample[sample != darkest]
    share: float = 1 - image.size / sample.size
    if share < LEAST_FILL or not image.size:
        return 0.0
    low, middle, high = quantiles(image, [0.1, 0.5, 0.99]).tolist()
    gap = low - float(darkest)
    step = 1.0 if np.issubdtype(sample.dtype, np.integer) else gap / (4 * GAP_STEPS)
    contrast = high - low
    inside = float(np.mean(image < float(darkest) + gap / 2))
    # Where all that is left has one value there is no image without the rest.
    if gap < GAP_STEPS * step or inside > GAP_SHARE or contrast <= 0:
        return 0.0
    factor = EMPTY_GAP_FACTOR if inside < EMPTY_GAP_SHARE else GAP_FACTOR
    return share if gap > contrast or gap > factor * (middle - low) else 0.0


def _find_slices(
    samples: Sequence[NDArray[Any]], fill: float | None
) -> tuple[FloatArray, FloatArray, FloatArray, tuple[int, ...]]:
    depth = len(samples)
    gains = np.ones(depth, np.float32)
    levels, targets = np.zeros(depth, np.float32), np.zeros(depth, np.float32)
    level, contrast, noise = np.full((3, depth), np.nan)
    empty = np.zeros(depth, np.bool_)

    def measure(first: int, last: int) -> None:
        for z in range(first, last):
            pairs = samples[z]
            kept = pairs if fill is None else pairs[(pairs != fill).all(axis=1)]
            if len(kept) < 20:
                empty[z] = not len(kept)
                continue
            values = kept if kept.dtype.kind == "u" else kept.astype(np.float64)
            if values.min() == values.max():
                empty[z] = True
                continue
            low, level[z], high = quantiles(values, [0.1, 0.5, 0.95])
            contrast[z] = high - low
            left, right = values.T
            noise[z] = quantiles(np.maximum(left, right) - np.minimum(left, right), [0.4])[0]

    in_threads(depth, measure, voxels=WORK_PER_PIXEL * sum(pairs.size for pairs in samples))
    lost = np.flatnonzero(empty).tolist()
    if depth < LEAST_SLICES or np.isfinite(level).sum() < LEAST_SLICES:
        return gains, levels, targets, ()
    for z in np.flatnonzero(np.isfinite(level)).tolist():
        others = [
            k
            for k in range(z - NEIGHBOURS, z + NEIGHBOURS + 1)
            if k != z and 0 <= k < depth and np.isfinite(level[k])
        ]
        if len(others) < 2:
            continue
        # The next one on either side; of the first and last slice the next two on the same side.
        near = sorted(others, key=lambda k: (abs(k - z), k))[:2]
        # The middle of the neighbours is not moved by one more bad slice among them.
        noisier = noise[z] / max(float(np.median(noise[others])), 1e-30)
        ratio = contrast[z] / max(float(np.median(contrast[others])), 1e-30)
        if not _alike(noise[near]) or noise[z] <= 0:
            continue
        if _alike(contrast[near]):
            odd = noisier > NOISE_FACTOR and ratio > CONTRAST_FACTOR
            odd |= noisier < 1 / NOISE_FACTOR and ratio < 1 / CONTRAST_FACTOR
            gain = ratio
        else:
            odd = not 1 / NOISE_ALONE_FACTOR < noisier < NOISE_ALONE_FACTOR
            gain = noisier
        if odd and gain > 0:
            gains[z], levels[z], targets[z] = gain, level[z], np.median(level[others])
    first, last = np.flatnonzero(np.isfinite(level))[[0, -1]]
    between = [z for z in lost if first < z < last]
    return gains, levels, targets, tuple(z for z in between if _is_short_gap(z, between))


def _alike(values: NDArray[np.float64]) -> bool:
    return float(values.max()) <= NEIGHBOURS_AGREE * float(values.min())


def _is_short_gap(z: int, lost: Sequence[int]) -> bool:
    """Whether a lost slice is one of at most `MOST_LOST` in a row."""
    first = last = z
    while first - 1 in lost:
        first -= 1
    while last + 1 in lost:
        last += 1
    return last - first < MOST_LOST


def _is_background(samples: Sequence[NDArray[Any]], fill: Any, width: int) -> bool:
    """Whether what lies in the fill are islands the size of cells."""
    ends = inside = 0
    for pairs in samples:
        image = pairs != fill
        ends += int(np.count_nonzero(image[:, 0] & ~image[:, 1]))
        inside += int(np.count_nonzero(image[:, 0]))
    if not ends:
        return False
    length = inside / ends
    return length < min(SHORT_PIECE, SHORT_SHARE * width)


def _nearest_kept(z: int, lost: tuple[int, ...], depth: int) -> tuple[int, ...]:
    below = next((k for k in range(z - 1, -1, -1) if k not in lost), None)
    above = next((k for k in range(z + 1, depth) if k not in lost), None)
    return tuple(k for k in (below, above) if k is not None)


def _base(sample: NDArray[Any]) -> float:
    """What is taken off grey values so that float32 tells them apart; 0 for usual ones.

    A whole number for whole numbers, of which a float holds the first 53 bits only.
    """
    lowest = sample.min().item()
    base: float = lowest if abs(lowest) > LARGEST_EXACT else 0
    return base


def computable(voxels: NDArray[Any], base: float) -> NDArray[Any]:
    """Voxels in a type and byte order that compiled kernels take, less a large offset."""
    voxels = np.asarray(voxels)
    if base and voxels.dtype.kind in "ui":
        # Modulo 2**64 every difference of two integers is exact, whatever their sign.
        wide = voxels.astype(np.uint64 if voxels.dtype.kind == "u" else np.int64).view(np.uint64)
        offset = np.uint64(int(base) % 2**64)
        above, below = ((a - b).astype(np.float32) for a, b in ((wide, offset), (offset, wide)))
        return np.where(voxels >= int(base), above, -below)
    if base:
        # Twice as many digits, of which the offset takes the first.
        return (voxels.astype(np.float64) - base).astype(np.float32)
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize not in (4, 8):
        return voxels.astype(np.float32)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
