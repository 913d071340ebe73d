"""Which parts of an image a probe for the cells' size looks at, on the model's grid.

One part suffices where it is most of the image, and in a stack. A large single image may have cells
of one size here and of another there, and where it is busiest are the brightest: one part in each
quarter then says more, together as large as the one. Of six images of 2048 x 2048 pixels, each of
twelve fields with nuclei of 25 to 51 pixels, the busiest place says a size that is off by a factor
of 1.54, and the four by 1.01 (`cells2d-harmonic`).
"""

from __future__ import annotations

import math

import numpy as np

from cellrt.geometry import Shape
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.runtime.grid.model_image import ModelImage, Scale, prepare_image
from cellrt.runtime.grid.scale import CellScale
from cellrt.runtime.grid.texture import busiest_box, typical_box
from cellrt.runtime.model.card import ModelCard

# Voxels of a probe on the model's grid: enough for some dozen cells, a fraction of a second.
PROBE = (32, 72, 72)
# Of a network that looks at single planes: some hundred cells, as one plane says less.
PLANAR_PROBE = (1, 320, 320)
# A single image of so many pixels along y and x, which is so many times as wide and high as what a
# probe sees, is looked at in each quarter. In smaller ones, mostly of one field, a part that is in
# one piece says more: of it fewer cells are cut.
LARGE_PIXELS, LARGE_TIMES = 1000, 1.9


def probe_shape(card: ModelCard) -> Shape:
    """Shape (z, y, x) of the largest probe on a model's grid."""
    if card.planar:
        return PLANAR_PROBE
    z, y, x = (math.ceil(edge / card.multiple) * card.multiple for edge in PROBE)
    return z, y, x


def shown(
    image: MendedImage, scale: CellScale, card: ModelCard, intensity: Scale | None = None
) -> ModelImage:
    """What a probe shows the network of an image, with cells of a scale's size.

    Parameters
    ----------
    image : MendedImage
    scale : CellScale
        The guess; an image is enlarged as far as it says, as a probe is small.
    card : ModelCard
    intensity : IntensityRange or Brightness, optional
        What becomes 0 and 1 as the user chose it; measured in the part that is shown otherwise.
    """
    factors = [card.diameter_voxels / scale.diameter_pixels * s for s in scale.spacing]
    largest = probe_shape(card)
    z, y, x = (
        min(n, max(1, math.ceil(p / f)))
        for n, p, f in zip(image.shape, largest, factors, strict=True)
    )
    if card.planar and all(
        n >= max(LARGE_PIXELS, LARGE_TIMES * p)
        for n, p in zip(image.shape[1:], (y, x), strict=True)
    ):
        return _of_quarters(image, (z, -(-y // 2), -(-x // 2)), largest, card, intensity)
    crop = image.crop(busiest_box(image, (z, y, x)))
    z, y, x = (
        min(p, max(1, round(n * f))) for n, p, f in zip(crop.shape, largest, factors, strict=True)
    )
    shape = (1 if image.shape[0] == 1 else z, y, x)
    return prepare_image(crop, shape, card.normalisation, intensity)


def _of_quarters(
    image: MendedImage, size: Shape, largest: Shape, card: ModelCard, intensity: Scale | None
) -> ModelImage:
    """A typical part of each quarter of an image, put together as one."""
    _, height, width = image.shape
    half = (1, largest[1] // 2, largest[2] // 2)
    ready = np.empty(largest, np.float16)
    for row in range(2):
        for column in range(2):
            quarter = image.crop(
                (
                    slice(None),
                    slice(row * height // 2, (row + 1) * height // 2),
                    slice(column * width // 2, (column + 1) * width // 2),
                )
            )
            crop = quarter.crop(typical_box(quarter, size))
            part = prepare_image(crop, half, card.normalisation, intensity)
            y, x = row * half[1], column * half[2]
            ready[:, y : y + half[1], x : x + half[2]] = part.read((0, 0, 0), half)
    return ModelImage(image, part.scale, ready)
