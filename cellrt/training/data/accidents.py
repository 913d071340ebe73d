"""Accidents of a microscope, played on a training patch before its brightness is measured.

Each is drawn anew for every patch, with its own probability: a network that has met them in
training does not stumble over them. Light is in units of a typical cell's height above background;
the background lies at 0.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]
Accident = Callable[["Scene", np.random.Generator], None]


@dataclass
class Scene:
    """What accidents change.

    Attributes
    ----------
    image : (z, y, x) float32 array
        Light.
    labels : (z, y, x) int32 array
        Cells of the same voxels; accidents that hide cells take them out.
    fill : (z, y, x) bool array
        Voxels that are no image.
    offset : float
        Light that stands for the camera's grey value of darkness: what scales whole slices or
        pictures scales it too.
    """

    image: FloatArray
    labels: npt.NDArray[np.int32]
    fill: npt.NDArray[np.bool_]
    offset: float


def light_from_one_side(scene: Scene, rng: np.random.Generator) -> None:
    """Up to six times as bright on one side as on the other, exponentially or linearly."""
    ratio = math.exp(rng.uniform(math.log(1.5), math.log(6.0)))
    ramp = _ramp(scene.image.shape, rng)
    field = ratio ** (ramp - 1) if rng.random() < 0.5 else 1 / ratio + (1 - 1 / ratio) * ramp
    scene.image *= field.astype(np.float32)


def vignette(scene: Scene, rng: np.random.Generator) -> None:
    """Darker towards the rim of the field of view."""
    _, height, width = scene.image.shape
    centre = rng.uniform(-0.3, 1.3, 2)
    y = np.linspace(0, 1, height)[:, None] - centre[0]
    x = np.linspace(0, 1, width)[None] - centre[1]
    scene.image *= np.exp(-rng.uniform(0.5, 2.5) * (y**2 + x**2)).astype(np.float32)


def stray_light(scene: Scene, rng: np.random.Generator) -> None:
    """Light added along an axis or in clouds, up to one and a half times a cell's brightness."""
    height = rng.uniform(0.1, 1.5)
    if rng.random() < 0.6:
        scene.image += np.float32(height) * _ramp(scene.image.shape, rng)
    else:
        clouds = rng.standard_normal((4, 4, 4)).astype(np.float32)
        clouds = _spread(clouds - clouds.min(), scene.image.shape)
        scene.image += np.float32(height / max(float(clouds.max()), 1e-6)) * clouds


def stripes(scene: Scene, rng: np.random.Generator) -> None:
    """Striped illumination, or lines of bidirectional scanning that differ in gain or shift."""
    axis = int(rng.integers(1, 3))
    lines = scene.image.shape[axis]
    shape = [-1 if k == axis else 1 for k in range(3)]
    kind = rng.integers(3)
    if kind == 0:
        period, phase = rng.uniform(3, 20), rng.uniform(0, 2 * math.pi)
        gains = 1 + rng.uniform(0.1, 0.5) * np.sin(2 * math.pi * np.arange(lines) / period + phase)
        scene.image *= gains.reshape(shape).astype(np.float32)
    elif kind == 1:
        gains = np.where(np.arange(lines) % 2, 1.0, rng.uniform(0.5, 0.95))
        scene.image *= gains.reshape(shape).astype(np.float32)
    else:
        odd = tuple(slice(1, None, 2) if k == axis else slice(None) for k in range(3))
        scene.image[odd] = np.roll(scene.image[odd], int(rng.choice([-2, -1, 1, 2])), 3 - axis)


def stitching_edge(scene: Scene, rng: np.random.Generator) -> None:
    """Two fields of view side by side that differ in gain, offset and place."""
    axis = int(rng.integers(1, 3))
    cut = int(rng.integers(scene.image.shape[axis]))
    part = tuple(slice(cut, None) if k == axis else slice(None) for k in range(3))
    scene.image[part] *= np.float32(math.exp(rng.uniform(-1, 1)))
    scene.image[part] += np.float32(rng.uniform(-0.1, 0.3))
    if rng.random() < 0.3:
        scene.image[part] = np.roll(scene.image[part], int(rng.integers(-2, 3)), 3 - axis)


def dirt(scene: Scene, rng: np.random.Generator) -> None:
    """One to three lumps, specks or fibres, up to a hundred times as bright as cells."""
    for _ in range(rng.integers(1, 4)):
        radii = np.exp(rng.uniform(math.log(1.0), math.log(10.0), 3))
        if rng.random() < 0.7:
            radii[:] = radii[0] * rng.uniform(0.7, 1.3, 3)
        centre = rng.uniform(0, 1, 3) * scene.image.shape
        low = np.maximum(0, (centre - radii - 2).astype(int))
        high = np.minimum(scene.image.shape, (centre + radii + 3).astype(int))
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        if any(s.start >= s.stop for s in box):
            continue
        grid = np.ogrid[box]
        distance = sum(
            ((axis - middle) / radius) ** 2
            for axis, middle, radius in zip(grid, centre, radii, strict=True)
        )
        soft = 1 / (1 + np.exp(np.clip(6 * (np.sqrt(distance) - 1), -30, 30)))
        brightness = math.exp(rng.uniform(math.log(2.5), math.log(100.0)))
        scene.image[box] += np.float32(brightness) * soft.astype(np.float32)
        scene.labels[box][distance < 1] = 0


def hot_pixels(scene: Scene, rng: np.random.Generator) -> None:
    """Up to two in a thousand pixels far too bright, some in the same place of every slice."""
    share = math.exp(rng.uniform(math.log(5e-5), math.log(2e-3)))
    _, height, width = scene.image.shape
    brightness = math.exp(rng.uniform(math.log(2.0), math.log(60.0)))
    if rng.random() < 0.3:
        scene.image[:, rng.random((height, width)) < share] += np.float32(brightness)
        return
    hot = rng.random(scene.image.shape) < share
    scene.image[hot] += rng.uniform(0.3, 1, int(hot.sum())).astype(np.float32) * np.float32(
        brightness
    )


def bad_slices(scene: Scene, rng: np.random.Generator) -> None:
    """Slices that are bright, dark, missing, repeated or shifted."""
    image = scene.image
    if len(image) == 1:
        return  # of one slice that would be all
    for z in rng.integers(0, len(image), rng.integers(1, 4)):
        choice = rng.integers(5)
        if choice == 0:
            gain = math.exp(rng.uniform(math.log(1.5), math.log(10.0)))
            image[z] = gain * (image[z] + scene.offset) - scene.offset
        elif choice == 1:
            image[z] *= np.float32(rng.uniform(0, 0.6))
        elif choice == 2:
            image[z] = -scene.offset
        elif choice == 3:
            image[z] = image[max(0, z - 1)]
        else:
            image[z] = np.roll(image[z], rng.integers(-2, 3, 2), (0, 1))


def few_grey_values(scene: Scene, rng: np.random.Generator) -> None:
    """Counts of 8 or 12 bits, or what is left of them, saturated above."""
    levels = math.exp(rng.uniform(math.log(6), math.log(200)))
    if rng.random() < 0.4:
        np.minimum(scene.image, np.float32(rng.uniform(0.4, 1.5)), out=scene.image)
    scene.image[:] = np.rint(scene.image * np.float32(levels)) / np.float32(levels)


def jpeg(scene: Scene, rng: np.random.Generator) -> None:
    """Every slice compressed as JPEG."""
    from PIL import Image

    quality = int(rng.integers(15, 80))
    low, high = -0.3, float(rng.uniform(1.0, 2.5))
    for plane in scene.image:
        pixels = np.clip((plane - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=quality)
        plane[:] = np.asarray(Image.open(file), np.float32) * ((high - low) / 255) + low


def fill(scene: Scene, rng: np.random.Generator) -> None:
    """One or two sides that are no image, cut along planes of any direction."""
    shape = np.array(scene.image.shape)
    for _ in range(rng.integers(1, 3)):
        normal = rng.standard_normal(3)
        if rng.random() < 0.4:  # padded, not rotated
            normal *= np.eye(3)[rng.integers(3)]
        normal /= np.linalg.norm(normal)
        through = shape * rng.uniform(0.15, 0.85, 3)
        grid = np.ogrid[tuple(slice(n) for n in shape)]
        side = sum(n * (axis - point) for n, axis, point in zip(normal, grid, through, strict=True))
        # The larger part stays.
        scene.fill |= side > 0 if np.count_nonzero(side > 0) < side.size / 2 else side <= 0
    scene.labels[scene.fill] = 0


BEFORE_SENSOR: tuple[tuple[float, Accident], ...] = (
    (0.2, light_from_one_side),
    (0.07, vignette),
    (0.15, stray_light),
    (0.12, dirt),
)
"""What happens to the light, with the probability of each."""

AT_SENSOR: tuple[tuple[float, Accident], ...] = (
    (0.06, stripes),
    (0.1, bad_slices),
    (0.1, hot_pixels),
    (0.1, few_grey_values),
    (0.05, jpeg),
)
"""What happens to the pixels, on the grid of the camera."""

AFTERWARDS: tuple[tuple[float, Accident], ...] = ((0.08, stitching_edge), (0.2, fill))
"""What happens to the file."""


def play(
    accidents: tuple[tuple[float, Accident], ...],
    scene: Scene,
    rng: np.random.Generator,
    share: float = 1.0,
) -> None:
    """Let accidents happen, each with its probability times ``share``."""
    for probability, accident in accidents:
        if rng.random() < probability * share:
            accident(scene, rng)


def _ramp(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """0 to 1 along a random axis, either way; along z only where there are several slices."""
    axis = int(rng.integers(1 if shape[0] == 1 else 0, 3))
    ramp = np.linspace(0, 1, shape[axis], dtype=np.float32)
    if rng.random() < 0.5:
        ramp = ramp[::-1]
    return np.ascontiguousarray(ramp).reshape([-1 if k == axis else 1 for k in range(3)])


def _spread(coarse: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    zoom = [n / m for n, m in zip(shape, coarse.shape, strict=True)]
    return np.asarray(ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest"))
