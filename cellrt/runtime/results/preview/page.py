"""A picture to judge a segmentation by at a glance: three slices, a projection, a scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellrt.runtime.grid.intensity import IntensityRange, estimate_range
from cellrt.runtime.image.source import Voxels
from cellrt.runtime.model.card_parts import Normalisation
from cellrt.runtime.results.preview.panels import (
    Plane,
    outlined,
    palette,
    project,
    render_from_above,
    render_plane,
)
from cellrt.runtime.results.preview.text import draw_text, text_width
from cellrt.wording import counted

_BACKGROUND = (14, 16, 20)
_TEXT = (236, 239, 244)
_FAINT = (150, 158, 170)
_WHITE = (255, 255, 255)
_BLACK = (0, 0, 0)
_MARGIN = 24
_GAP = 10
_CAPTION = 26
_HEADER = 96
_SMALLEST_WIDTH = 420
# Longest side in pixels of the three slices together.
_BLOCK = 900
# Of so many rows and columns of an image one tells the contrast well enough; odd, as line by line
# scanners may differ.
_SAMPLED = 3
# Width over height from which an image and its cells stand one above the other, twice as wide.
_WIDE = 2.0
# Share of that which an image fills well enough: it is shown as it is.
_FILLING = 0.6
# More cells than this one above the other, and outlines on the projection say nothing.
_CROWDED = 1.7
# Shortest side of room that a picture in the corner is worth.
_CORNER = 120
_CONTRAST = Normalisation(low_percentile=0.5, high_percentile=99.8)
# The brightest along z may be so many times as bright as what slices show.
_PROJECTED = 2.0


@dataclass(frozen=True, eq=False)
class _Panel:
    """A finished picture, where it goes and how many of its pixels are one unit of length."""

    picture: Image.Image
    left: int
    top: int
    scale: float
    caption: str


def write_preview(
    path: str | Path,
    image: Voxels,
    labels: NDArray[np.int32],
    voxel_size_um: Sequence[float] | None = None,
    *,
    anisotropy: float = 1.0,
    title: str = "",
    cells: int | None = None,
    note: str = "",
) -> None:
    """Write a PNG of the image with the outlines of its cells.

    A stack shows three orthogonal slices where many cells are, at the same scale along all axes,
    and the brightest-value projection along z. An image of one slice is shown without and with
    outlines, side by side, or one above the other where it is wide.

    Parameters
    ----------
    path : str or Path
        Written as PNG whatever its ending.
    image : ndarray or VoxelSource, any real dtype, shape (z, y, x)
        Read slice by slice.
    labels : ndarray of int32, shape (z, y, x)
    voxel_size_um : (z, y, x) in µm, optional
        Without it the scale bar counts voxels.
    anisotropy : float
        z size over x size, used when ``voxel_size_um`` is not given.
    title : str
        Usually the file's name.
    cells : int, optional
        Number of cells, counted from the labels when not given.
    note : str
        One more line under the title, such as what became of the intensities.
    """
    spacing = (anisotropy, 1.0, 1.0)
    if voxel_size_um is not None:
        spacing = (voxel_size_um[0], voxel_size_um[1], voxel_size_um[2])
    if cells is None:
        cells = _count_labels(labels)
    if labels.shape[0] == 1:
        panels = _image_panels(image, labels, spacing)
    else:
        panels = _stack_panels(image, labels, spacing)
    width = max(_SMALLEST_WIDTH, _MARGIN + max(p.left + p.picture.width for p in panels))
    height = max(p.top + p.picture.height for p in panels) + _CAPTION + _MARGIN // 2
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    unit = "µm" if voxel_size_um is not None else "voxels"
    for panel in panels:
        canvas.paste(panel.picture, (panel.left, panel.top))
        _write_caption(draw, panel)
    for panel in (panels[0], panels[-1]):
        _draw_scale_bar(draw, panel, unit)
    _write_header(draw, width, title, cells, labels.shape, voxel_size_um)
    while note and text_width(note, 13) > width - 2 * _MARGIN and "," in note:
        note = note.rpartition(",")[0]
    draw_text(draw, (_MARGIN, 82), note, 13, _FAINT)
    if labels.shape[0] == 1:
        # Greys and the colours of outlines do; to write more of them takes six times as long.
        canvas = canvas.quantize(palette=palette(), dither=Image.Dither.NONE)
        canvas.save(path, format="PNG", compress_level=1)
        return
    canvas.save(path, format="PNG", compress_level=4)


def warm_up() -> None:
    """Compile what `write_preview` needs, so that it can happen while something else runs."""
    labels = np.ones((2, 3, 3), np.int32)
    plane, _ = project(labels, labels)
    render_plane(plane, (6, 6), IntensityRange(0.0, 1.0))
    render_from_above(labels, (6, 6), 1.0)


def _count_labels(labels: NDArray[np.int32]) -> int:
    present = np.zeros(int(labels.max(initial=0)) + 1, dtype=bool)
    for plane in labels:
        present[plane] = True
    return int(np.count_nonzero(present[1:]))


def _image_panels(
    image: Voxels, labels: NDArray[np.int32], spacing: tuple[float, float, float]
) -> list[_Panel]:
    height, width = (n * s for n, s in zip(labels.shape[1:], spacing[1:], strict=True))
    wide, longest = width >= _WIDE * height, max(height, width)
    scale = (2 * _BLOCK + _GAP) / width if wide else _BLOCK / longest
    if not wide and _FILLING * _BLOCK <= longest <= _BLOCK:
        scale = 1.0
    size = _in_pixels((height, width), scale)
    plane = Plane(np.asarray(image[0]), labels[0])
    step = _SAMPLED if min(plane.image.shape) > _SAMPLED * _CORNER else 1
    contrast = estimate_range(plane.image[None, ::step, ::step], _CONTRAST)
    plain = render_plane(plane, size, contrast, outlines=False)
    cells = outlined(plain, plane.labels)
    right, below = _MARGIN + plain.width + _GAP, _HEADER + plain.height + _CAPTION
    return [
        _Panel(plain, _MARGIN, _HEADER, scale, "image"),
        _Panel(cells, *((_MARGIN, below) if wide else (right, _HEADER)), scale, "cells"),
    ]


def _stack_panels(
    image: Voxels, labels: NDArray[np.int32], spacing: tuple[float, float, float]
) -> list[_Panel]:
    """Slices xy, beside it zy, below it xz, all at one scale; projections in the rest.

    ::

        +-------+----+  +----------+
        |  xy   | zy |  |  large   |
        |       |    |  |  projec- |
        +-------+----+  |  tion    |
        |  xz   |corn|  |          |
        +-------+----+  +----------+

    The large projection shows the image where that says something, and the cells in crowded
    tissue; the corner shows the other one where there is room.
    """
    ez, ey, ex = (n * s for n, s in zip(labels.shape, spacing, strict=True))
    scale = _BLOCK / max(ex + ez, ey + ez)
    z, y, x = _central_slices(labels)
    nz, ny, nx = labels.shape
    planes = [
        Plane(np.asarray(image[z]), labels[z]),
        Plane(np.asarray(image[:, :, x]).T, labels[:, :, x].T),
        Plane(np.asarray(image[:, y]), labels[:, y]),
    ]
    contrast = _common_contrast(planes)
    sizes = [_in_pixels(e, scale) for e in ((ey, ex), (ey, ez), (ez, ex))]
    xy, zy, xz = (render_plane(p, size, contrast) for p, size in zip(planes, sizes, strict=True))
    right = _MARGIN + xy.width + _GAP
    below = _HEADER + xy.height + _CAPTION
    panels = [
        _Panel(xy, _MARGIN, _HEADER, scale, f"xy, slice {z + 1} of {nz}"),
        _Panel(zy, right, _HEADER, scale, f"zy, column {x + 1} of {nx}"),
        _Panel(xz, _MARGIN, below, scale, f"xz, row {y + 1} of {ny}"),
    ]
    projected, crowding = project(image, labels)
    crowded = crowding > _CROWDED
    z_over_x = spacing[0] / spacing[2]

    def draw_projection(of_cells: bool, left: int, top: int, room: tuple[int, int]) -> _Panel:
        scale = min(room[0] / ey, room[1] / ex)
        size = _in_pixels((ey, ex), scale)
        if of_cells:
            picture = render_from_above(labels, size, z_over_x)
        else:
            own = _common_contrast([projected])
            # Dirt that hardly any slice cuts is in the projection, and would leave cells black.
            most = own.low + _PROJECTED * (contrast.high - contrast.low)
            bright = IntensityRange(own.low, min(own.high, most))
            picture = render_plane(projected, size, bright, outlines=not crowded)
        caption = "uppermost cells along z" if of_cells else "brightest along z"
        return _Panel(picture, left, top, scale, caption)

    if projected.labels.any() and min(zy.width, xz.height) >= _CORNER:
        panels.append(draw_projection(not crowded, right, below, (xz.height, zy.width)))
    left = right + zy.width + 2 * _GAP
    room = (xy.height + _CAPTION + xz.height, max(xy.width + _GAP + zy.width, _BLOCK))
    return [*panels, draw_projection(crowded, left, _HEADER, room)]


def _in_pixels(extents: Sequence[float], scale: float) -> tuple[int, int]:
    rows, columns = extents
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _common_contrast(planes: list[Plane]) -> IntensityRange:
    values = np.concatenate([np.asarray(p.image, dtype=np.float32).ravel() for p in planes])
    return estimate_range(values[None, None], _CONTRAST)


def _central_slices(labels: NDArray[np.int32]) -> tuple[int, int, int]:
    """Along each axis a slice with much labelled area that is not far from the cells' middle."""
    counts = [np.zeros(n) for n in labels.shape]
    for z, plane in enumerate(labels):
        mask = plane > 0
        counts[0][z] = np.count_nonzero(mask)
        counts[1] += mask.sum(axis=1)
        counts[2] += mask.sum(axis=0)
    if not counts[0].any():
        nz, ny, nx = labels.shape
        return nz // 2, ny // 2, nx // 2
    best = []
    for count in counts:
        positions = np.arange(len(count))
        centre = (count * positions).sum() / count.sum()
        nearness = 1.0 - 0.5 * np.abs(positions - centre) / len(count)
        padded = np.pad(count, 1)
        smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3.0
        # A slice between two with cells may have none itself.
        best.append(int(np.argmax(smooth * nearness * (count > 0))))
    return best[0], best[1], best[2]


def _write_caption(draw: ImageDraw.ImageDraw, panel: _Panel) -> None:
    for text in (panel.caption, panel.caption.split(",")[0]):
        if text_width(text, 14) <= panel.picture.width + _GAP:
            base = panel.top + panel.picture.height + 17
            draw_text(draw, (panel.left, base), text, 14, _FAINT)
            return


def _draw_scale_bar(draw: ImageDraw.ImageDraw, panel: _Panel, unit: str) -> None:
    length = _round_length(0.25 * panel.picture.width / panel.scale)
    text = f"{length:g} {unit}"
    width = round(length * panel.scale)
    needed = max(width, text_width(text, 16)) + 24
    if panel.picture.width < needed or panel.picture.height < 48:
        return
    right = panel.left + panel.picture.width - 12
    bottom = panel.top + panel.picture.height - 12
    middle = right - max(width, text_width(text, 16)) / 2
    left = round(middle - width / 2)
    draw.rectangle((left - 1, bottom - 6, left + width + 1, bottom + 1), fill=_BLACK)
    draw.rectangle((left, bottom - 5, left + width, bottom), fill=_WHITE)
    start = middle - text_width(text, 16) / 2
    draw_text(draw, (start, bottom - 12), text, 16, _WHITE, stroke=_BLACK)


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step for step in (1.0, 2.0, 5.0) if step * power <= length * 1.0001) * power


def _write_header(
    draw: ImageDraw.ImageDraw,
    width: int,
    title: str,
    cells: int,
    shape: tuple[int, ...],
    voxel_size_um: Sequence[float] | None,
) -> None:
    extent = " x ".join(str(n) for n in (shape if shape[0] > 1 else shape[1:]))
    facts = [counted(cells, "cell"), f"{extent} voxels"]
    if voxel_size_um is not None:
        sizes = voxel_size_um if shape[0] > 1 else voxel_size_um[1:]
        facts.append(" x ".join(f"{s:.3g}" for s in sizes) + " µm per voxel")
    while len(title) > 8 and text_width(title, 22) > width - 2 * _MARGIN:
        title = f"{title[: len(title) // 2 - 2]}...{title[len(title) // 2 + 2 :]}"
    draw_text(draw, (_MARGIN, 38), title, 22, _TEXT)
    draw_text(draw, (_MARGIN, 62), " · ".join(facts), 15, _FAINT)
