"""Intensity normalisation: per image, never per tile, so that tiles cannot differ at seams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.image.source import Voxels
from cellrt.runtime.model.card_parts import Normalisation

# A strided sample this large puts the 99.8th percentile within a fraction of a grey level.
SAMPLE_VOXELS = 2_000_000


@dataclass(frozen=True)
class IntensityRange:
    """Grey values that map to 0 (``low``) and 1 (``high``)."""

    low: float
    high: float

    @property
    def is_constant(self) -> bool:
        """Whether the image has no contrast beyond rounding errors."""
        return not self.high - self.low > 1e-5 * max(abs(self.low), abs(self.high))

    def normalise(
        self,
        image: NDArray[np.generic],
        start: Shape = (0, 0, 0),
        fill: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Map ``low..high`` to 0..1, see :func:`normalise`; where the box lies does not matter."""
        return normalise(image, self)


def estimate_range(image: Voxels, normalisation: Normalisation | None = None) -> IntensityRange:
    """Percentiles of the whole image, from a strided sample where the image is large.

    Parameters
    ----------
    image : ndarray or VoxelSource, any real dtype, shape (z, y, x)
        Only the sample is kept of what is read.
    normalisation : Normalisation, optional
        Percentiles; the default is 1 and 99.8.
    """
    return range_of(np.asarray(image[sample_strides(image.shape)]), normalisation)


def range_of(
    sample: NDArray[np.generic], normalisation: Normalisation | None = None
) -> IntensityRange:
    """Percentiles of a sample, any real dtype and shape; see :func:`estimate_range`."""
    normalisation = normalisation or Normalisation()
    sample = sample.astype(np.float32).ravel()
    low, high = np.percentile(sample, [normalisation.low_percentile, normalisation.high_percentile])
    if not high > low:
        # Sparse signal: less than 0.2 % of the voxels are bright. Use all of the contrast.
        low, high = float(sample.min()), float(sample.max())
    return IntensityRange(float(low), float(high))


def normalise(image: NDArray[np.generic], intensity: IntensityRange) -> NDArray[np.float32]:
    """Map ``low..high`` to 0..1 and clip softly beyond.

    Above 1 the value grows as ``1 + log(value)`` and below 0 it is clipped at -0.2: a few very
    bright specks neither set the scale nor vanish into a plateau.

    Parameters
    ----------
    image : ndarray, any real dtype, any shape
    intensity : IntensityRange

    Returns
    -------
    ndarray, float32, same shape
        Zero everywhere when the image is constant.
    """
    result = image.astype(np.float32)
    if intensity.is_constant:
        result.fill(0)
        return result
    result -= np.float32(intensity.low)
    result *= np.float32(1.0 / (intensity.high - intensity.low))
    bright = result > 1
    result[bright] = 1 + np.log(result[bright])
    np.maximum(result, np.float32(-0.2), out=result)
    return result


def sample_strides(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Strides that leave about SAMPLE_VOXELS, taken from y and x first: slices differ in z."""
    voxels = int(np.prod(shape))
    excess = max(1.0, voxels / SAMPLE_VOXELS)
    lateral = max(1, int(np.ceil(excess**0.5)))
    strides = [1] * (len(shape) - 2) + [lateral, lateral]
    # An odd stride does not lock on to the even-odd line pattern of bidirectional scanning.
    return tuple(slice(None, None, s + (s > 1 and s % 2 == 0)) for s in strides)
