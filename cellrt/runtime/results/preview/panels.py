"""Pictures of one slice or projection with the outlines of its cells; no text, no layout."""

from __future__ import annotations

import colorsys
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellrt.compiled import compiled
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.image.source import Voxels

# Outlines are drawn at twice the size and shrunk, which smooths their steps.
_OVERSAMPLING = 2
_GOLDEN_RATIO = 0.618033988749895
# However sums are rounded.
_MORE_THAN_HALF = np.float32(0.5001)
# Below 1 dim cells beside bright ones stay visible.
_GAMMA = 0.7


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice or projection: grey values and labels, both of shape (rows, columns)."""

    image: NDArray[Any]
    labels: NDArray[np.int32]


def render_plane(
    plane: Plane, size: tuple[int, int], contrast: IntensityRange, *, outlines: bool = True
) -> Image.Image:
    """Picture of ``size`` (rows, columns) pixels: grey image, one coloured line along each cell."""
    grey = _to_grey(plane.image, contrast)
    rows, columns = size
    method = Image.Resampling.BOX if rows < grey.shape[0] else Image.Resampling.BICUBIC
    picture = Image.fromarray(grey).resize((columns, rows), method).convert("RGB")
    return outlined(picture, plane.labels) if outlines else picture


def outlined(picture: Image.Image, labels: NDArray[np.int32]) -> Image.Image:
    """The same picture with one coloured line along each cell; labels may have another size."""
    if not labels.any():
        return picture
    columns, rows = picture.size
    fine = (rows * _OVERSAMPLING, columns * _OVERSAMPLING)
    labels = _resample_labels(np.ascontiguousarray(labels, dtype=np.int32), *fine)
    rgb = np.array(picture)
    edge = np.empty(labels.shape, np.bool_)
    _mark_edges(labels, edge)
    _draw_outlines(labels, edge, _colour_table(), rgb)
    return Image.fromarray(rgb)


def project(image: Voxels, labels: NDArray[np.int32]) -> tuple[Plane, float]:
    """Brightest value along z, and of each column the label of its longest run.

    Reads slice by slice. The longest run shows each cell where it is thickest, which neither hides
    lower cells behind thin edges of upper ones nor mixes overlapping outlines.

    Returns
    -------
    plane : Plane
    crowding : float
        Mean number of cells in the columns that hold any.
    """
    brightest = np.asarray(image[0], dtype=np.float32).copy()
    runs = np.zeros((5, *labels.shape[1:]), dtype=np.int32)
    for image_slice, label_slice in zip(image, labels, strict=True):
        np.maximum(brightest, np.asarray(image_slice, dtype=np.float32), out=brightest)
        _extend_runs(np.ascontiguousarray(label_slice, dtype=np.int32), runs)
    occupied = runs[4][runs[4] > 0]
    return Plane(brightest, runs[2]), float(occupied.mean()) if occupied.size else 0.0


def render_from_above(
    labels: NDArray[np.int32], size: tuple[int, int], z_over_x: float
) -> Image.Image:
    """The uppermost cells seen along z, each in its colour, lit from the upper left.

    For tissue, where the projection of the image shows all layers at once.
    """
    nz = labels.shape[0]
    top = np.zeros(labels.shape[1:], dtype=np.int32)
    height = np.zeros(labels.shape[1:], dtype=np.float32)
    for z, label_slice in enumerate(labels):
        fresh = (top == 0) & (label_slice > 0)
        top[fresh] = label_slice[fresh]
        height[fresh] = (nz - z) * z_over_x
    shade = _lighting(height, nz * z_over_x)
    fine = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    smooth = _resample_labels(top, *fine)
    light = np.array(Image.fromarray(shade).resize((fine[1], fine[0]), Image.Resampling.BILINEAR))
    rgb = np.empty((*fine, 3), dtype=np.uint8)
    _light_up(smooth, light, _colour_table(), rgb)
    return Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BOX)


def _lighting(height: NDArray[np.float32], depth: float) -> NDArray[np.float32]:
    """Brightness 0 to 1 of a height map: Lambert's law, and darker the deeper."""
    soft = _smooth(_smooth(height, 0), 1)
    slope_y, slope_x = np.gradient(soft) if min(soft.shape) > 1 else (0 * soft, 0 * soft)
    facing = (1.0 + 0.5 * (slope_y + slope_x)) / np.sqrt(1.5 * (1.0 + slope_y**2 + slope_x**2))
    nearness = 0.55 + 0.45 * height / max(depth, 1e-6)
    shade: NDArray[np.float32] = np.clip(0.35 + 0.75 * np.clip(facing, 0.0, 1.0), 0.0, 1.0)
    return (shade * nearness).astype(np.float32)


def _smooth(height: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Binomial filter of 9 pixels, almost a Gaussian; importing SciPy's takes longer than it."""
    padding = [(0, 0), (0, 0)]
    padding[axis] = (4, 4)
    padded = np.moveaxis(np.pad(height, padding, mode="edge"), axis, 0)
    length = height.shape[axis]
    taps = [math.comb(8, i) / 256 for i in range(9)]
    soft = sum(np.float32(tap) * padded[i : i + length] for i, tap in enumerate(taps))
    return np.moveaxis(np.asarray(soft), 0, axis)


def _to_grey(image: NDArray[Any], contrast: IntensityRange) -> NDArray[np.uint8]:
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2 and image.size > 1 << 16:
        values = np.arange(np.iinfo(image.dtype).max + 1, dtype=np.uint32)
        table: NDArray[np.uint8] = _to_grey(values, contrast)[image]
        return table
    span = max(contrast.high - contrast.low, 1e-12)
    scaled = (np.asarray(image, dtype=np.float32) - contrast.low) / span
    scaled = np.clip(np.nan_to_num(scaled), 0.0, 1.0) ** _GAMMA
    grey: NDArray[np.uint8] = (255.0 * scaled).astype(np.uint8)
    return grey


@functools.cache
def palette() -> Image.Image:
    """Picture that holds 256 colours: greys, and those of outlines over them in some lightness."""
    greys = [(level, level, level) for level in np.linspace(0, 255, 64).round().astype(int)]
    lines = [
        tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue / 24, saturation, value))
        for hue in range(24)
        for saturation in (0.85, 0.5)
        for value in (1.0, 0.75, 0.5, 0.3)
    ]
    holder = Image.new("P", (1, 1))
    holder.putpalette([int(part) for colour in (*greys, *lines) for part in colour])
    return holder


@functools.cache
def _colour_table() -> NDArray[np.uint8]:
    """Bright colours; ids that follow each other are far apart in hue."""
    table = np.array(
        [
            colorsys.hsv_to_rgb((i * _GOLDEN_RATIO) % 1.0, (0.8, 0.55, 0.95)[i % 3], 1.0)
            for i in range(256)
        ]
    )
    # Blue lines vanish on black: mix in white until all are about equally light.
    lightness = table @ (0.2126, 0.7152, 0.0722)
    white = np.clip((0.5 - lightness) / (1.0 - lightness), 0.0, 1.0)[:, None]
    return (255 * (table * (1.0 - white) + white)).astype(np.uint8)


@compiled
def _mark_edges(labels, edge):  # type: ignore[no-untyped-def]
    """Pixels with another label beside them."""
    rows, columns = labels.shape
    for r in range(rows):
        row, above, below = labels[r], labels[max(r - 1, 0)], labels[min(r + 1, rows - 1)]
        for c in range(columns):
            edge[r, c] = (above[c] != row[c]) | (below[c] != row[c])
        for c in range(1, columns):
            if row[c] != row[c - 1]:
                edge[r, c - 1] = True
                edge[r, c] = True


@compiled
def _draw_outlines(labels, edge, colours, rgb):  # type: ignore[no-untyped-def]
    """Colour the edges of cells in a picture, of which each pixel is four of the labels'.

    One pixel more on the inside, so that a line is still there after shrinking.
    """
    rows, columns = labels.shape
    for r in range(rgb.shape[0]):
        for c in range(rgb.shape[1]):
            count = 0
            red = green = blue = 0
            for i in range(2 * r, 2 * r + 2):
                for j in range(2 * c, 2 * c + 2):
                    label = labels[i, j]
                    if label > 0 and (
                        edge[i, j]
                        or edge[max(i - 1, 0), j]
                        or edge[min(i + 1, rows - 1), j]
                        or edge[i, max(j - 1, 0)]
                        or edge[i, min(j + 1, columns - 1)]
                    ):
                        count += 1
                        red += colours[label & 255, 0]
                        green += colours[label & 255, 1]
                        blue += colours[label & 255, 2]
            if count > 0:
                rgb[r, c, 0] = (red + (4 - count) * rgb[r, c, 0] + 2) // 4
                rgb[r, c, 1] = (green + (4 - count) * rgb[r, c, 1] + 2) // 4
                rgb[r, c, 2] = (blue + (4 - count) * rgb[r, c, 2] + 2) // 4


@compiled
def _light_up(labels, light, colours, rgb):  # type: ignore[no-untyped-def]
    """Colour of each label times the light on it, darker along borders, black elsewhere."""
    rows, columns = labels.shape
    for r in range(rows):
        for c in range(columns):
            label = labels[r, c]
            border = (r + 1 < rows and labels[r + 1, c] != label) or (
                c + 1 < columns and labels[r, c + 1] != label
            )
            border |= (r > 0 and labels[r - 1, c] != label) or (c > 0 and labels[r, c - 1] != label)
            share = np.float32(0.35) * light[r, c] if border else light[r, c]
            for k in range(3):
                rgb[r, c, k] = np.uint8(colours[label & 255, k] * share) if label > 0 else 0


@compiled
def _extend_runs(labels, runs):  # type: ignore[no-untyped-def]
    """Current label, length of its run, label of the longest run, its length, number of runs."""
    rows, columns = labels.shape
    for r in range(rows):
        for c in range(columns):
            label = labels[r, c]
            if label == runs[0, r, c]:
                runs[1, r, c] += 1
            else:
                runs[0, r, c] = label
                runs[1, r, c] = 1
                runs[4, r, c] += label > 0
            if label > 0 and runs[1, r, c] > runs[3, r, c]:
                runs[2, r, c] = label
                runs[3, r, c] = runs[1, r, c]


def _resample_labels(labels: NDArray[np.int32], rows: int, columns: int) -> NDArray[np.int32]:
    """Label with the largest cubic B-spline weight at each pixel: smooth borders, no new labels."""
    out = np.empty((rows, columns), np.int32)
    splines = [*_splines(labels.shape[0], rows), *_splines(labels.shape[1], columns)]
    wider = np.pad(labels, 2, mode="edge")
    _vote(wider, *splines, np.empty(16, np.int32), np.empty(16, np.float32), out)
    return out


def _splines(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Voxel before each pixel, and the weights of the four voxels around it, (target, 4)."""
    position = (np.arange(target) + 0.5) * source / target - 0.5
    before = np.floor(position).astype(np.int64)
    t = position - before
    weights = (
        (1.0 - t) ** 3 / 6.0,
        (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0,
        (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0,
        t**3 / 6.0,
    )
    return before, np.stack(weights, axis=1).astype(np.float32)


@compiled
def _vote(labels, row_of, wr, column_of, wc, seen, weight, out):  # type: ignore[no-untyped-def]
    rows, columns = out.shape
    for r in range(rows):
        r0 = row_of[r] + 2
        for c in range(columns):
            c0 = column_of[c] + 2
            label = labels[r0, c0]
            right, below, across = labels[r0, c0 + 1], labels[r0 + 1, c0], labels[r0 + 1, c0 + 1]
            # The four voxels around have at least 25/36 of the weight.
            if right != label or below != label or across != label:
                nearest = r0 + (wr[r, 2] > wr[r, 1]), c0 + (wc[c, 2] > wc[c, 1])
                label = labels[nearest]
                sure = np.float32(0)
                if labels[r0, c0] == label:
                    sure += wr[r, 1] * wc[c, 1]
                if right == label:
                    sure += wr[r, 1] * wc[c, 2]
                if below == label:
                    sure += wr[r, 2] * wc[c, 1]
                if across == label:
                    sure += wr[r, 2] * wc[c, 2]
                # Where they give one label more than half of all, those around can be left out.
                if sure < _MORE_THAN_HALF:
                    label = _heaviest(labels, r0 - 1, c0 - 1, wr[r], wc[c], seen, weight)
            out[r, c] = label


@compiled
def _heaviest(labels, top, left, wr, wc, seen, weight):  # type: ignore[no-untyped-def]
    """The label of 4 x 4 voxels that has most weight."""
    count = 0
    for i in range(4):
        for j in range(4):
            label = labels[top + i, left + j]
            k = 0
            while k < count and seen[k] != label:
                k += 1
            if k == count:
                seen[k] = label
                weight[k] = 0.0
                count += 1
            weight[k] += wr[i] * wc[j]
    best = 0
    for k in range(1, count):
        if weight[k] > weight[best]:
            best = k
    return seen[best]
