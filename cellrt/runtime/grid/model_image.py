"""An image on the model's grid, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.grid.intensity import IntensityRange, estimate_range, normalise
from cellrt.runtime.grid.resample import resample_planes
from cellrt.runtime.image.source import Voxels
from cellrt.runtime.model.card import Normalisation

# Planes of the model's grid that are resampled to measure the intensity range.
SAMPLED_PLANES = 24


@dataclass(frozen=True)
class ModelImage:
    """An image as the network sees it: on the model's grid, normalised.

    ``source`` is the input itself where the grids agree (tiles are then read and normalised one by
    one, straight from the file), else a resampled and normalised float16 copy.
    """

    source: Voxels
    intensity: IntensityRange
    ready: bool

    @property
    def shape(self) -> Shape:
        """Shape (z, y, x) on the model's grid."""
        z, y, x = self.source.shape
        return z, y, x

    def read(self, start: Shape, stop: Shape) -> NDArray[np.float32]:
        """Read a box, mirrored at the far faces where it reaches beyond the image.

        Returns
        -------
        ndarray, float32, shape stop - start
        """
        inside = tuple(slice(a, min(b, n)) for a, b, n in zip(start, stop, self.shape, strict=True))
        box = self.source[inside]
        image = box.astype(np.float32) if self.ready else normalise(box, self.intensity)
        missing = [b - a - n for a, b, n in zip(start, stop, image.shape, strict=True)]
        if any(missing):
            image = np.pad(image, [(0, m) for m in missing], mode="symmetric")
        return np.ascontiguousarray(image)


def prepare_image(image: Voxels, shape: Shape, normalisation: Normalisation) -> ModelImage:
    """Bring an image to the model's grid and measure its intensity range there.

    The range is measured after resampling, as in training: averaging takes noise away, and with it
    the extremes that noise adds.

    Parameters
    ----------
    image : ndarray or VoxelSource, any real dtype, shape (z, y, x)
    shape : (int, int, int)
        Shape on the model's grid.
    normalisation : Normalisation
        Percentiles.
    """
    if image.shape == shape:
        return ModelImage(image, estimate_range(image, normalisation), ready=False)
    step = max(1, shape[0] // SAMPLED_PLANES)
    sampled = resample_planes(image, shape, range(step // 2, shape[0], step))
    intensity = estimate_range(np.stack([plane for _, plane in sampled]), normalisation)
    ready = np.empty(shape, np.float16)
    for z, plane in resample_planes(image, shape):
        ready[z] = normalise(plane, intensity)
    return ModelImage(ready, intensity, ready=True)
