"""PNG and JPEG: what is read, what is said about it, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellrt.errors import InputError
from cellrt.runtime.image.reading import read_array, read_volume

GREY = (np.arange(12 * 20, dtype=np.uint16).reshape(12, 20) * 200).astype(np.uint16)
BYTES = (GREY // 256).astype(np.uint8)
COLOUR = np.stack([BYTES, BYTES // 2, 255 - BYTES], axis=-1)


@pytest.mark.parametrize("pixels", [GREY, BYTES], ids=["16 bits", "8 bits"])
def test_a_grey_png_is_one_slice_of_its_own_values(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.is_2d
    assert volume.dtype == pixels.dtype
    np.testing.assert_array_equal(volume.image[0], pixels)
    assert volume.voxel_size_um is None or volume.voxel_size_um[2] is None
    assert not volume.warnings


def test_labels_can_be_a_png(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_array(tmp_path / "labels.png"), GREY)


def test_colours_are_channels_to_choose_from(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path)
    with pytest.raises(InputError, match=r"1 = red, 2 = green, 3 = blue, 4 = luminance"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, channel="green").image[0], COLOUR[..., 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_luminance_is_a_channel_of_colours_in_every_format(tmp_path, dtype):
    colour = COLOUR.astype(dtype) * (100 if dtype == np.uint16 else 1)
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", colour, photometric="rgb", compression="zlib")
    files = ["a.tif", "b.tif"]
    if dtype == np.uint8:
        Image.fromarray(colour).save(tmp_path / "c.png")
        files.append("c.png")
    expected = colour.astype(float) @ [0.299, 0.587, 0.114]
    for name in files:
        volume = read_volume(tmp_path / name, channel="luminance")
        assert volume.channel_names == ("red", "green", "blue", "luminance")
        assert volume.dtype == dtype
        assert "called 'luminance'" in str(volume.channel_source)
        off = np.abs(volume.image[0] - expected).max()
        assert off <= (1e-3 if dtype == np.float32 else 0.5001)
        np.testing.assert_array_equal(volume.image[:, 3:5, ::2], volume.image[:][:, 3:5, ::2])
        assert len(pickle.loads(pickle.dumps(volume)).channels) == 4


def test_grey_saved_as_colours_is_grey(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.repeat(BYTES[..., None], 3, axis=2)).save(path)
    np.testing.assert_array_equal(read_volume(path).image[0], BYTES)


@pytest.mark.parametrize("channel", ["blue", "Red", 2, "luminance"])
def test_a_grey_picture_has_the_channels_of_coloured_ones_beside_it(tmp_path, channel):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "empty.png")
    volume = read_volume(tmp_path / "empty.png", channel=channel)
    assert volume.image.shape == (1, 8, 9)
    with pytest.raises(InputError, match="has no channel 'infrared'"):
        read_volume(tmp_path / "empty.png", channel="infrared")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(InputError, match="has no channel"):
        read_volume(tmp_path / "grey.png", channel="blue")


@pytest.mark.parametrize("opaque", [True, False])
def test_transparency_is_no_channel_and_said_where_it_is_there(tmp_path, opaque):
    alpha = np.full_like(BYTES, 255) if opaque else BYTES
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png", channel=3)
    assert volume.channel_names == ("red", "green", "blue", "luminance")
    assert any("transparency" in text for text in volume.warnings) != opaque


def test_a_jpeg_is_read_with_a_warning(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "a.JPG", "jpeg", quality=95)
    volume = read_volume(tmp_path / "a.JPG")
    assert np.abs(volume.image[0].astype(int) - BYTES).mean() < 8
    assert any("JPEG" in text for text in volume.warnings)


def test_an_orientation_for_viewers_is_said_and_not_followed(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=exif)
    volume = read_volume(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.image[0], BYTES)
    assert any("EXIF" in text for text in volume.warnings)


def _animated(path):
    frames = [Image.fromarray(BYTES), Image.fromarray(255 - BYTES)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _paletted(path):
    Image.fromarray(COLOUR).quantize(8).save(path)


def _cut_off(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])


def _deep_colours(path):
    import struct
    import zlib

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(3))
    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_animated, "animated, with 2 frames"),
        (_paletted, "has a palette"),
        (_cut_off, "truncated or damaged"),
        (_deep_colours, "16 bits a colour"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nnothing"), "truncated or damaged"),
        (lambda path: path.write_bytes(b"II*\0 something"), "truncated or damaged"),
        (lambda path: path.write_bytes(b"no picture"), "no PNG file"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(tmp_path, write, words):
    write(tmp_path / "a.png")
    with pytest.raises(InputError, match=words) as caught:
        read_volume(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("held", "named"), [("JPEG", "a.png"), ("PNG", "a.jpg"), ("TIFF", "a.png")]
)
def test_what_a_file_holds_goes_before_what_it_is_called(tmp_path, held, named):
    Image.fromarray(BYTES).save(tmp_path / named, format=held)
    volume = read_volume(tmp_path / named)
    assert np.abs(volume.image[0].astype(int) - BYTES).max() <= (8 if held == "JPEG" else 0)
