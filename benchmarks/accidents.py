"""Ordinary accidents of a microscope, played on labelled stacks: what `robustness.py` scores.

Each takes an image (z, y, x) of any real dtype with its labels and returns both, changed. They are
written apart from what networks are trained with (`cellrt.training.accidents`): other code, other
parameters.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[Any]
Pair = tuple[Image, Image]

# Of a wide field: share of foreground, unless it would have more voxels than this.
FIELD_SHARE = 0.002
LARGEST_FIELD = 64e6


@dataclass(frozen=True)
class Accident:
    """One accident.

    Parameters
    ----------
    name : str
        A row of the table.
    play : callable
        ``(image, labels, rng) -> (image, labels)``.
    background : bool
        It needs voxels that belong to no cell.
    slices : bool
        It befalls some slices of a stack, and no single image.
    """

    name: str
    play: Callable[[Image, Image, np.random.Generator], Pair]
    background: bool = False
    slices: bool = False


def _rotated(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    grey = image.astype(np.float32) + _to_offset(image, 400)
    angle = float(rng.uniform(15, 30))
    turned = ndimage.rotate(grey, angle, (1, 2), order=1, mode="constant", cval=0)
    with_labels = ndimage.rotate(labels, angle, (1, 2), order=0, mode="constant", cval=0)
    return _stored(turned, image), with_labels


def _padded(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    grey = image.astype(np.float32) + _to_offset(image, 1000)
    width = [(n // 6, n // 4) for n in image.shape]
    return _stored(np.pad(grey, width), image), np.pad(labels, width)


def _speck(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    changed = image.astype(np.float32)
    radius = _radius(0.0015 * image.size, image.shape)
    inside = _ball(image.shape, rng.uniform(0.2, 0.8, 3) * image.shape, radius)
    changed[inside] = 65535 if image.dtype != np.uint8 else 255
    return _stored(changed, image), np.where(inside, 0, labels)


def _dirt(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    changed = image.astype(np.float32)
    cells = np.bincount(labels.ravel())[1:]
    radius = _radius(float(np.median(cells[cells > 0])), image.shape)
    inside = _ball(image.shape, rng.uniform(0.2, 0.8, 3) * image.shape, radius)
    low, cell = _levels(image, labels)
    changed[inside] = low + 5 * (cell - low)
    return _stored(changed, image), np.where(inside, 0, labels)


def _bright_slice(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    changed = image.astype(np.float32)
    changed[_middle(image, rng)] *= 8
    return _stored(changed, image), labels


def _stray_light(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, cell = _levels(image, labels)
    return _stored(image + (cell - low) * _ramp(image.shape, 2), image), labels


def _one_side(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, _ = _levels(image, labels)
    return _stored(low + (image - low) * (0.25 + 0.75 * _ramp(image.shape, 1)), image), labels


def _wide_field(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    """Around the image comes more of its own background, drawn from where no cell is."""
    distance = ndimage.distance_transform_edt(labels == 0)
    dark = image[distance > min(3, distance.max() / 2)].astype(np.float32)
    dark = dark[dark <= np.quantile(dark, 0.9)]
    # Crowded stacks would become hundreds of times as large. They are not cut instead: of a part of
    # them, cells that are cut through are lost without any field, too.
    factor = min(np.mean(labels > 0) / FIELD_SHARE, LARGEST_FIELD / image.size)
    width = [(int(n * max(0.0, factor ** (1 / 3) - 1) / 2) + 1,) * 2 for n in image.shape]
    wide = np.pad(image.astype(np.float32), width)
    cells = np.pad(labels, width)
    outside = np.pad(np.ones(image.shape, bool), width, constant_values=False)
    wide[~outside] = rng.choice(dark, int((~outside).sum()))
    return _stored(wide, image), cells


def _hot_pixels(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    changed = image.astype(np.float32)
    low, cell = _levels(image, labels)
    hot = rng.random(image.shape) < 0.0007
    changed[hot] = low + (cell - low) * rng.uniform(5, 30, int(hot.sum()))
    return _stored(changed, image), labels


def _few_counts(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    divisor = max(1.0, float(np.quantile(image, 0.999)) / 20)
    return np.asarray(image / divisor, np.uint16 if image.dtype != np.uint8 else np.uint8), labels


def _depth_decay(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, _ = _levels(image, labels)
    return _stored(low + (image - low) * 0.15 ** _ramp(image.shape, 0), image), labels


def _bleaching(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, _ = _levels(image, labels)
    return _stored(low + (image - low) * (1 - 0.7 * _ramp(image.shape, 0)), image), labels


def _defocus(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    grey = image.astype(np.float32)
    blurred = ndimage.gaussian_filter(grey, (1.0, 2.0, 2.0))
    ramp = _ramp(image.shape, 0)
    return _stored(grey * (1 - ramp) + blurred * ramp, image), labels


def _stitching(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, _ = _levels(image, labels)
    changed = image.astype(np.float32)
    half = image.shape[2] // 2
    changed[..., half:] = low + (changed[..., half:] - low) * 0.5 + 0.2 * low
    return _stored(changed, image), labels


def _missing_slice(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    changed = image.copy()
    changed[_middle(image, rng)] = 0
    return changed, labels


def _repeated_slice(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    changed = image.copy()
    z = _middle(image, rng)
    changed[z] = changed[z - 1]
    return changed, labels


def _interlaced(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, _ = _levels(image, labels)
    changed = image.astype(np.float32)
    changed[:, 1::2] = low + 0.7 * (changed[:, 1::2] - low)
    return _stored(changed, image), labels


def _striped(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, _ = _levels(image, labels)
    lines = 1 + 0.3 * np.sin(2 * np.pi * np.arange(image.shape[2]) / 12)
    return _stored(low + (image - low) * lines, image), labels


def _jpeg(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    from PIL import Image as Pillow

    low, high = np.quantile(image, [0.001, 0.999])
    changed = np.empty(image.shape, np.uint8)
    for plane, out in zip(image, changed, strict=True):
        grey = np.clip((plane - low) * (255 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Pillow.fromarray(grey).save(file, "jpeg", quality=40)
        out[:] = np.asarray(Pillow.open(file))
    return changed, labels


def _eight_bits(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, high = float(image.min()), float(image.max())
    return ((image - low) * (255 / max(high - low, 1e-9))).astype(np.uint8), labels


def _twelve_bits(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    low, cell = _levels(image, labels)
    return np.clip((image - low) * (3000 / (cell - low)) + 200, 0, 4095).astype(np.uint16), labels


ACCIDENTS = (
    Accident("rotated, corners filled with zeros, offset 400", _rotated),
    Accident("padded with zeros, offset 1000", _padded),
    Accident("a saturated speck, 0.15 % of voxels", _speck),
    Accident("dirt five times as bright as cells, same size", _dirt),
    Accident("one slice eight times as bright", _bright_slice, slices=True),
    Accident("stray light along one axis, up to a cell's brightness", _stray_light),
    Accident("four times as bright on one side", _one_side),
    Accident("cells in a wide dark field, down to 0.2 % foreground", _wide_field, background=True),
    Accident("hot pixels, 0.07 %", _hot_pixels),
    Accident("counts divided, 20 grey values left", _few_counts),
    Accident("light lost with depth, to 0.15", _depth_decay, slices=True),
    Accident("bleached along z, to 0.3", _bleaching, slices=True),
    Accident("defocused along z", _defocus, slices=True),
    Accident("stitched, half as bright on one side", _stitching),
    Accident("one slice missing (zeros)", _missing_slice, slices=True),
    Accident("one slice repeated", _repeated_slice, slices=True),
    Accident("interlaced, every second line 0.7", _interlaced),
    Accident("striped illumination", _striped),
    Accident("JPEG, quality 40", _jpeg),
    Accident("8 bits, stretched", _eight_bits),
    Accident("12 bits, saturated", _twelve_bits),
)


def _radius(voxels: float, shape: tuple[int, ...]) -> float:
    """Of the ball, or in a single image the disc, of so many voxels."""
    return float((voxels / np.pi) ** 0.5 if shape[0] == 1 else (0.75 * voxels / np.pi) ** (1 / 3))


def _levels(image: Image, labels: Image) -> tuple[float, float]:
    """Background and a typical cell's brightness."""
    if (labels == 0).any() and (labels > 0).any():
        low, cell = float(np.median(image[labels == 0])), float(np.median(image[labels > 0]))
        if low < cell:
            return low, cell
    # Labels do not part dark from bright, as in tissue.
    return float(np.quantile(image, 0.05)), float(np.quantile(image, 0.95))


def _to_offset(image: Image, offset: float) -> float:
    """What to add so that the darkest background is at least `offset`."""
    return max(0.0, offset - float(np.quantile(image, 0.01)))


def _stored(image: Image, like: Image) -> Image:
    """As a camera's file would store it: 16 bits where 8 do not hold it."""
    if np.issubdtype(like.dtype, np.floating):
        return image.astype(np.float32)
    highest = 255 if like.dtype == np.uint8 and image.max() <= 255 else 65535
    return np.clip(np.rint(image), 0, highest).astype(np.uint8 if highest == 255 else np.uint16)


def _ramp(shape: tuple[int, ...], axis: int) -> NDArray[np.float32]:
    ramp = np.linspace(0, 1, shape[axis], dtype=np.float32)
    return ramp.reshape([-1 if k == axis else 1 for k in range(3)])


def _middle(image: Image, rng: np.random.Generator) -> int:
    return int(rng.integers(len(image) // 3, max(len(image) // 3 + 1, 2 * len(image) // 3)))


def _ball(shape: tuple[int, ...], centre: NDArray[Any], radius: float) -> NDArray[np.bool_]:
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return np.asarray(
        sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) <= radius**2
    )
