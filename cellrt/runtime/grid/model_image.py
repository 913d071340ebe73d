"""An image on the model's grid, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.grid.brightness import Brightness, BrightnessMeter, uniform
from cellrt.runtime.grid.intensity import IntensityRange, estimate_range, range_of, sample_strides
from cellrt.runtime.grid.margins import without_margins
from cellrt.runtime.grid.mended_image import MendedImage, as_it_is, mended
from cellrt.runtime.grid.resample import resample_mended
from cellrt.runtime.image.source import Voxels
from cellrt.runtime.model.card_parts import LocalBrightness, Normalisation
from cellrt.threads import in_threads

# Planes of the model's grid that are resampled to measure the intensity range.
SAMPLED_PLANES = 24
# Planes that tell how much is clipped.
CLIPPED_PLANES = 6
# Voxels that are read in one call: some planes, which a core's cache holds.
VOXELS_AT_ONCE = 1 << 19
# Voxels along each axis that are sampled of images whose grey values have a large offset.
SAMPLED_PER_AXIS = 128

Scale = IntensityRange | Brightness


@dataclass(frozen=True)
class ModelImage:
    """An image as the network sees it: on the model's grid, normalised.

    Attributes
    ----------
    source : MendedImage
        The input. Where the grids agree, boxes are read from it and normalised one by one.
    scale : IntensityRange or Brightness
        What becomes 0 and 1.
    ready : ndarray, float16, shape (z, y, x), or None
        The resampled and normalised image, where the grids differ.
    """

    source: MendedImage
    scale: Scale
    ready: NDArray[np.float16] | None = None

    @property
    def shape(self) -> Shape:
        """Shape (z, y, x) on the model's grid."""
        if self.ready is None:
            return self.source.shape
        z, y, x = self.ready.shape
        return z, y, x

    @property
    def enlarged(self) -> tuple[float, float, float]:
        """Voxels of the model's grid per voxel of the image, along (z, y, x)."""
        z, y, x = (mine / n for mine, n in zip(self.shape, self.source.shape, strict=True))
        return z, y, x

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to see."""
        return self.source.defects.constant or (
            isinstance(self.scale, IntensityRange) and self.scale.is_constant
        )

    def read(
        self, start: Shape, stop: Shape, into: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Read a box, mirrored at the far faces where it reaches beyond the image.

        Parameters
        ----------
        start, stop : (int, int, int)
        into : ndarray, float32, shape stop - start, optional
            Where to write it.

        Returns
        -------
        ndarray, float32, shape stop - start
            `into`, where it was given.
        """
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        result = np.empty(shape, np.float32) if into is None else into
        z, y, x = (min(b, n) for b, n in zip(stop, self.shape, strict=True))
        inside = result[: z - start[0], : y - start[1], : x - start[2]]
        source = self.source if self.ready is not None else self.source.held(start, (z, y, x))

        def planes(first: int, last: int) -> None:
            low = (start[0] + first, start[1], start[2])
            if self.ready is not None:
                box = tuple(slice(a, b) for a, b in zip(low, (start[0] + last, y, x), strict=True))
                inside[first:last] = self.ready[box]
            else:
                voxels, fill = source.read(low, (start[0] + last, y, x))
                inside[first:last] = self.scale.normalise(voxels, low, fill)

        # As few calls as keep all cores busy: between them threads wait for the interpreter.
        step = max(1, VOXELS_AT_ONCE // max(1, inside[0].size)) if len(inside) else 1

        def part(first: int, last: int) -> None:
            for group in range(first, last):
                planes(group * step, min((group + 1) * step, len(inside)))

        in_threads(-(-len(inside) // step), part, voxels=inside.size)
        if inside.shape != result.shape:
            missing = [(0, b - a) for a, b in zip(inside.shape, result.shape, strict=True)]
            result[...] = np.pad(inside, missing, mode="symmetric")
        return result


def look_at(image: Voxels, rule: Normalisation | LocalBrightness) -> MendedImage:
    """Find an image's defects, where the model's rule for intensities asks for it.

    Returns
    -------
    MendedImage
        What a network is to see of it: no margins of fill.
    """
    return without_margins(_mended(image, rule))


def _mended(image: Voxels, rule: Normalisation | LocalBrightness) -> MendedImage:
    return mended(image) if isinstance(rule, LocalBrightness) else as_it_is(image)


def measure_intensity(
    image: MendedImage,
    shape: Shape,
    rule: Normalisation | LocalBrightness,
    chosen: IntensityRange | None = None,
) -> Scale:
    """Measure on the model's grid what becomes 0 and 1.

    After resampling, as in training: averaging takes noise away, and with it the extremes that
    noise adds.

    Parameters
    ----------
    image : MendedImage
    shape : (int, int, int)
        Shape on the model's grid.
    rule : Normalisation or LocalBrightness
        The model card's.
    chosen : IntensityRange, optional
        The user's choice, instead of what would be measured.
    """
    if chosen is not None:
        base = image.defects.base
        chosen = IntensityRange(chosen.low - base, chosen.high - base)
    if isinstance(rule, LocalBrightness):
        return uniform(chosen) if chosen else _brightness(image, shape, rule)
    return chosen or _range(image, shape, rule)


def prepare_image(
    image: MendedImage | Voxels,
    shape: Shape,
    rule: Normalisation | LocalBrightness,
    scale: Scale | None = None,
) -> ModelImage:
    """Bring an image to the model's grid and normalise it.

    Parameters
    ----------
    image : MendedImage, or ndarray or VoxelSource of any real dtype, shape (z, y, x)
    shape : (int, int, int)
        Shape on the model's grid.
    rule : Normalisation or LocalBrightness
        The model card's.
    scale : IntensityRange or Brightness, optional
        As measured with :func:`measure_intensity`, which is done here otherwise.
    """
    source = image if isinstance(image, MendedImage) else _mended(image, rule)
    scale = scale or measure_intensity(source, shape, rule)
    if source.shape == shape:
        return ModelImage(source, scale)
    ready = np.empty(shape, np.float16)
    for z, plane, fill in resample_mended(source, shape):
        mask = None if fill is None else fill[None]
        ready[z] = scale.normalise(plane[None], (z, 0, 0), mask)[0]
    return ModelImage(source, scale, ready)


def clipped_share(image: MendedImage, shape: Shape, scale: Scale) -> float:
    """Share of the voxels, in some planes, that are too bright for the scale to keep linear."""
    step = max(1, shape[0] // CLIPPED_PLANES)
    chosen = range(step // 2, shape[0], step)
    if image.shape == shape:
        planes = ((z, image.plane(z)[0]) for z in chosen)
    else:
        planes = ((z, plane) for z, plane, _ in resample_mended(image, shape, chosen))
    shares = [float(np.mean(scale.normalise(plane[None], (z, 0, 0)) > 1)) for z, plane in planes]
    return float(np.mean(shares))


def _range(source: MendedImage, shape: Shape, rule: Normalisation) -> IntensityRange:
    if source.shape == shape:
        if source.defects.base:
            return range_of(source.sample(SAMPLED_PER_AXIS), rule)
        z, y, x = (slice(a, b) for a, b in zip(source.start, source.stop, strict=True))
        return estimate_range(source.source[z, y, x], rule)
    step = max(1, shape[0] // SAMPLED_PLANES)
    chosen = range(step // 2, shape[0], step)
    strides = sample_strides((len(chosen), *shape[1:]))[1:]
    sampled = [plane[strides].copy() for _, plane, _ in resample_mended(source, shape, chosen)]
    return range_of(np.stack(sampled), rule)


def _brightness(source: MendedImage, shape: Shape, rule: LocalBrightness) -> Brightness:
    meter = BrightnessMeter(shape, rule.diameter_voxels)
    # Every second plane tells the means of blocks well enough.
    step = max(1, meter.block // 2)
    planes = range(min(step // 2, shape[0] - 1), shape[0], step)
    for z, plane, fill in resample_mended(source, shape, planes):
        meter.add(z, plane, fill)
    return meter.measure()
