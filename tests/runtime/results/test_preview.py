"""The preview shows the cells it was given, at one scale, whatever the stack's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.results.preview import text as lettering
from cellrt.runtime.results.preview.page import _central_slices, write_preview
from cellrt.runtime.results.preview.panels import (
    Plane,
    _resample_labels,
    project,
    render_plane,
)
from cellrt.runtime.results.preview.text import draw_text, text_width


def two_balls(shape: tuple[int, int, int] = (20, 40, 50)) -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    labels[(z - 9) ** 2 + (y - 12) ** 2 + (x - 14) ** 2 < 49] = 1
    labels[(z - 11) ** 2 + (y - 28) ** 2 + (x - 34) ** 2 < 64] = 2
    noise = np.random.default_rng(0).normal(100, 5, shape)
    return (noise + 200 * (labels > 0)).astype(np.uint16), labels


def colourfulness(picture: Image.Image) -> int:
    """Number of pixels that are not grey."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=-1) > 60).sum())


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((20, 40, 50), {}),
        ((20, 40, 50), {"voxel_size_um": (2.0, 0.3, 0.3)}),
        ((20, 40, 50), {"anisotropy": 3.0}),
        ((1, 40, 50), {"voxel_size_um": (2.0, 0.3, 0.3)}),
        ((1, 30, 300), {}),
        ((1, 300, 30), {}),
        ((3, 90, 90), {}),
        ((120, 12, 12), {}),
        ((5, 6, 300), {}),
        ((2, 1, 1), {}),
    ],
    ids=str,
)
def test_every_shape_makes_a_picture(
    tmp_path: Path, shape: tuple[int, int, int], options: dict[str, Any]
) -> None:
    image, labels = two_balls(shape)
    path = tmp_path / "preview.tmp"
    write_preview(path, image, labels, title="stack", **options)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 300 < picture.width < 2500
        assert 100 < picture.height < 2500
        if labels.any():
            assert colourfulness(picture) > 20


def test_a_wide_image_stands_above_its_cells(tmp_path: Path) -> None:
    sizes = {}
    for shape in ((1, 100, 150), (1, 50, 300), (1, 300, 50)):
        image, labels = two_balls(shape)
        write_preview(tmp_path / "p.png", image, labels)
        with Image.open(tmp_path / "p.png") as picture:
            sizes[shape] = picture.size
    # As wide as two of the others beside each other, and each pixel of the image twice as large.
    assert sizes[1, 50, 300][0] == pytest.approx(sizes[1, 100, 150][0], abs=30)
    assert sizes[1, 50, 300][1] > 2 * 1800 / 300 * 50
    assert sizes[1, 300, 50][1] > 900


def test_an_image_that_fills_its_room_is_shown_as_it_is(tmp_path: Path) -> None:
    image, labels = two_balls((1, 500, 640))
    image = np.broadcast_to(np.linspace(0, 900, 640, dtype=np.float32), image.shape)
    labels[0, 100:300, 100:300] = 3
    write_preview(tmp_path / "p.png", image, labels)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.mode == "P"  # written in a sixth of the time
        assert 2 * 640 < picture.width < 2 * 640 + 100
        shown = np.asarray(picture.convert("RGB")).astype(int)
    grey = (shown[..., 0] == shown[..., 1]) & (shown[..., 1] == shown[..., 2])
    assert len(np.unique(shown[grey][:, 0])) > 40  # no steps in soft shades
    assert (np.ptp(shown, axis=2) > 80).sum() > 500  # bright outlines


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float32, np.int32])
def test_blank_images_without_cells(tmp_path: Path, dtype: str) -> None:
    image = np.full((5, 30, 30), 7, dtype)
    write_preview(tmp_path / "p.png", image, np.zeros(image.shape, np.int32))
    with Image.open(tmp_path / "p.png") as picture:
        assert colourfulness(picture) == 0


def test_a_memory_map_in_foreign_byte_order(tmp_path: Path) -> None:
    image, labels = two_balls()
    image.astype(">u2").tofile(tmp_path / "raw")
    mapped = np.memmap(tmp_path / "raw", ">u2", "r", shape=image.shape)
    write_preview(tmp_path / "a.png", mapped, labels)
    write_preview(tmp_path / "b.png", image, labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_outlines_follow_the_cells_and_nothing_else() -> None:
    image, labels = two_balls()
    plane = Plane(image[10], labels[10])
    picture = render_plane(plane, (400, 500), IntensityRange(90, 320))
    pixels = np.asarray(picture).astype(int)
    coloured = np.ptp(pixels, axis=-1) > 60
    inside = np.kron(labels[10] > 0, np.ones((10, 10), int)) > 0
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(inside) + distance_transform_edt(~inside)
    assert coloured.sum() > 400
    # Within one voxel of the border of the mask, which is drawn smoothed.
    assert distance[coloured].max() <= 11
    assert not np.ptp(
        np.asarray(render_plane(plane, (400, 500), IntensityRange(90, 320), outlines=False)),
        axis=-1,
    ).any()


def test_projection_shows_each_cell_where_it_is_thickest() -> None:
    labels = np.zeros((10, 4, 4), np.int32)
    labels[0:2], labels[2:9] = 1, 2
    image = np.arange(10)[:, None, None] * np.ones((10, 4, 4))
    plane, crowding = project(image, labels)
    assert (plane.labels == 2).all()
    assert (plane.image == 9).all()
    assert crowding == 2.0


def test_slices_go_through_the_cells(tmp_path: Path) -> None:
    from cellrt.runtime.results.preview.page import _central_slices

    labels = np.zeros((50, 60, 70), np.int32)
    labels[3:9, 50:58, 2:10] = 1
    z, y, x = _central_slices(labels)
    assert labels[z].any()
    assert labels[:, y].any()
    assert labels[:, :, x].any()
    assert _central_slices(np.zeros((50, 60, 70), np.int32)) == (25, 30, 35)


def test_round_lengths() -> None:
    from cellrt.runtime.results.preview.page import _round_length

    found = [_round_length(length) for length in (0.07, 0.99, 1, 4.9, 5, 23, 512)]
    assert found == pytest.approx([0.05, 0.5, 1, 2, 5, 20, 500])


@pytest.mark.parametrize("text", ["5 µm", "5 μm", "Zelle Ä", "细胞", "a\udcff\n", ""])
def test_any_text_can_be_drawn(text: str) -> None:
    canvas = Image.new("RGB", (200, 40))
    draw_text(ImageDraw.Draw(canvas), (5, 30), text, 20, (255, 255, 255))
    drawn = np.flatnonzero(np.asarray(canvas).any(axis=(0, 2)))
    assert (len(drawn) > 0) == bool(text)
    if text:
        assert drawn.max() <= 5 + text_width(text, 20) + 2


def test_micro_sign_has_a_stem_below_the_line() -> None:
    def lowest(text: str) -> int:
        canvas = Image.new("L", (60, 40))
        draw_text(ImageDraw.Draw(canvas), (5, 25), text, 20, 255)  # type: ignore[arg-type]
        return int(np.flatnonzero(np.asarray(canvas).any(axis=1)).max())

    assert lowest("µ") > lowest("u") + 2


@pytest.mark.parametrize(
    "slices",
    [[0], [0, 1], [19], [0, 2], [0, 2, 4], [1, 19], list(range(0, 20, 2)), [0, 19]],
    ids=str,
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slices_that_are_shown_have_cells(slices: list[int], axis: int) -> None:
    labels = np.zeros((20, 20, 20), np.int32)
    part: list[Any] = [slice(3, 9)] * 3
    part[axis] = slices
    labels[tuple(part)] = 1
    z, y, x = _central_slices(labels)
    assert labels[z].any()
    assert labels[:, y].any()
    assert labels[:, :, x].any()


@pytest.mark.parametrize("depth", [2, 3])
def test_a_shallow_stack_with_cells_in_its_first_slice(depth: int) -> None:
    labels = np.zeros((depth, 9, 9), np.int32)
    labels[0, 2:5, 2:5] = 1
    assert _central_slices(labels)[0] == 0


def test_cells_in_the_first_slices_only_are_outlined_in_all_three(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 9, (60, 40, 40)).astype(np.uint8)
    labels = np.zeros(image.shape, np.int32)
    labels[:2, 10:30, 10:30] = 1
    write_preview(tmp_path / "p.png", image, labels)
    with Image.open(tmp_path / "p.png") as picture:
        assert colourfulness(picture) > 100


NAMES = ["αβ.tif", "γδ.tif", "细胞.tif", "細胞.tif", "Müller.tif", "Muller.tif", "клетки.tif"]


def header(title, tmp_path):
    """Pixels of the title's line."""
    labels = np.zeros((1, 32, 32), np.int32)
    write_preview(tmp_path / "a.png", labels, labels, title=title)
    return np.asarray(Image.open(tmp_path / "a.png"))[:45].tobytes()


@pytest.mark.parametrize("fonts", [(), lettering._SYSTEM_FONTS])
def test_names_that_differ_look_different_whatever_letters_they_have(monkeypatch, tmp_path, fonts):
    monkeypatch.setattr(lettering, "_SYSTEM_FONTS", fonts)
    lettering._written.cache_clear()
    assert len({header(name, tmp_path) for name in [*NAMES, "??.tif", "??????.tif"]}) == 9
    lettering._written.cache_clear()


def test_letters_that_no_font_has_are_escaped(monkeypatch, tmp_path):
    monkeypatch.setattr(lettering, "_SYSTEM_FONTS", ("no such font.ttf",))
    lettering._written.cache_clear()
    assert header("α中.tif", tmp_path) == header(r"\u03b1\u4e2d.tif", tmp_path)
    # As macOS takes letters apart; a byte that is no letter of any code.
    assert header("u\u0308", tmp_path) == header("\u00fc", tmp_path) == header(r"\xfc", tmp_path)
    assert header("a\udcff.tif", tmp_path) == header(r"a\udcff.tif", tmp_path)
    lettering._written.cache_clear()


@pytest.mark.parametrize("size", [(62, 74), (40, 90), (17, 13)])
def test_smoothed_labels_are_those_with_the_largest_spline_weight(
    size: tuple[int, int],
) -> None:
    rng = np.random.default_rng(4)
    labels = np.kron(rng.integers(0, 4, (11, 13)), np.ones((3, 3), int)).astype(np.int32)
    labels[rng.random(labels.shape) < 0.05] = 5
    smooth = _resample_labels(labels, *size)
    places = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(size, labels.shape, strict=True)]
    at = np.meshgrid(*places, indexing="ij")
    weights = np.stack(
        [
            ndimage.map_coordinates(
                (labels == k).astype(float), at, order=3, prefilter=False, mode="nearest"
            )
            for k in range(6)
        ]
    )
    first, second = np.sort(weights, axis=0)[[-1, -2]]
    clear = first - second > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(smooth[clear], weights.argmax(axis=0)[clear])
