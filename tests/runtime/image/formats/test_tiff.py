"""TIFF files of every kind the microscopes' software writes, and files that are none."""

from __future__ import annotations

import logging
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.errors import InputError
from cellrt.runtime.image.formats import tiff
from cellrt.runtime.image.formats.damage import damaged
from cellrt.runtime.image.reading import read_array, read_volume

DATA = Path(__file__).parents[4].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real stacks (../shared/data) are absent")

STACK = np.random.default_rng(0).integers(0, 60_000, (7, 33, 45)).astype(np.uint16)
TWO_CHANNELS = np.random.default_rng(1).integers(0, 250, (5, 2, 20, 24)).astype(np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stack.tif"


def message(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}, "bigtiff": True, "compression": "zlib"},
        {"metadata": {"axes": "ZYX"}},
        {"metadata": None},
        {"metadata": None, "contiguous": False, "rowsperstrip": 5},
    ],
    ids=str,
)
def test_stack_of_every_format_keeps_its_voxels(file: Path, options: dict[str, Any]) -> None:
    options = {k: v for k, v in options.items() if k != "contiguous"}
    tifffile.imwrite(file, STACK, **options)
    volume = read_volume(file)
    assert volume.shape == (7, 33, 45)
    assert volume.dtype.newbyteorder("=") == np.uint16
    np.testing.assert_array_equal(volume.image[:], STACK)
    assert volume.axes_source.origin in ("file", "assumed")
    assert volume.path == file


@pytest.mark.parametrize(
    ("mode", "dtype"), [("L", np.uint8), ("I;16", np.uint16), ("I", np.int32), ("F", np.float32)]
)
@pytest.mark.parametrize("predictor", [1, 2])
def test_lzw_is_read_without_further_packages(
    file: Path, mode: str, dtype: type, predictor: int
) -> None:
    image = pytest.importorskip("PIL.Image")
    planes = (STACK[:4] // 300).astype(dtype)
    pictures = [image.fromarray(plane) for plane in planes]
    pictures[0].save(
        file,
        save_all=True,
        append_images=pictures[1:],
        compression="tiff_lzw",
        tiffinfo={317: predictor},
    )
    # Four pages alone could be channels.
    volume = read_volume(file, axes="ZYX")
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.image[:], planes)


def test_uncompressed_stacks_are_memory_maps_and_are_not_copied(file: Path) -> None:
    tifffile.imwrite(file, TWO_CHANNELS, imagej=True, metadata={"axes": "ZCYX"})
    volume = read_volume(file, channel=2)
    assert volume.nbytes_resident == 0
    assert volume.nbytes == TWO_CHANNELS.nbytes
    assert not volume.image[:].flags.writeable
    np.testing.assert_array_equal(volume.image[:], TWO_CHANNELS[:, 1])


def test_pyramid_is_read_at_full_resolution(file: Path) -> None:
    with tifffile.TiffWriter(file, bigtiff=True, ome=True) as tif:
        options = {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib"}
        tif.write(STACK, subifds=1, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5}, **options)
        tif.write(STACK[:, ::2, ::2], subfiletype=1, **options)
    volume = read_volume(file)
    np.testing.assert_array_equal(volume.image[:], STACK)
    assert volume.voxel_size_um == (None, None, 0.5)


def test_image_is_a_stack_of_one_slice(file: Path) -> None:
    tifffile.imwrite(file, STACK[0])
    volume = read_volume(file)
    assert volume.shape == (1, 33, 45)
    assert volume.is_2d
    assert volume.file_axes == "YX"


@pytest.mark.parametrize(
    ("array", "letters"),
    [(STACK[:1], "ZYX"), (STACK[None], "TZYX"), (STACK[:, None, None], "ZTCYX")],
    ids=["ZYX", "TZYX", "ZTCYX"],
)
def test_singleton_axes_do_not_matter(file: Path, array: np.ndarray, letters: str) -> None:
    tifffile.imwrite(file, array, metadata={"axes": letters})
    volume = read_volume(file)
    np.testing.assert_array_equal(volume.image[:], array.reshape(volume.shape))
    np.testing.assert_array_equal(read_volume(file, axes=letters).image[:], volume.image[:])


def test_booleans_are_zeros_and_ones(file: Path) -> None:
    tifffile.imwrite(file, STACK > 30_000)
    volume = read_volume(file)
    np.testing.assert_array_equal(volume.image[:], (STACK > 30_000).astype(np.uint8))
    assert volume.dtype == np.uint8


# Channels and time


def test_channels_must_be_chosen_and_all_are_kept(file: Path) -> None:
    names = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(file, TWO_CHANNELS, ome=True, metadata=names, photometric="minisblack")
    text = message(file)
    assert "2 channels (1 = DAPI, 2 = GFP)" in text
    assert "channel 1 to channel 2" in text
    for channel in (2, "2", "GFP", "gfp"):
        volume = read_volume(file, channel=channel)
        assert volume.segmented_channel == 1
        assert [source.shape for source in volume.channels] == [(5, 20, 24)] * 2
        np.testing.assert_array_equal(volume.image[:], TWO_CHANNELS[:, 1])
    np.testing.assert_array_equal(volume.channel("DAPI")[:], TWO_CHANNELS[:, 0])
    assert "no channel 3" in message(file, channel=3)
    assert "no channel 0" in message(file, channel=0)
    assert "'RFP'" in message(file, channel="RFP")


def test_colours_are_channels(file: Path) -> None:
    rgb = np.ascontiguousarray(np.moveaxis(STACK[:3] // 256, 0, -1)).astype(np.uint8)
    tifffile.imwrite(file, rgb, photometric="rgb")
    assert "1 = red, 2 = green, 3 = blue, 4 = luminance" in message(file)
    np.testing.assert_array_equal(read_volume(file, channel=3).image[0], rgb[..., 2])
    np.testing.assert_array_equal(read_volume(file, channel="green").image[0], rgb[..., 1])
    tifffile.imwrite(file, rgb, photometric="minisblack", planarconfig="contig")
    assert "luminance" not in message(file)  # samples of which nobody says that they are colours


def test_time_must_be_chosen(file: Path) -> None:
    movie = STACK[:6].reshape(2, 3, 33, 45)
    tifffile.imwrite(file, movie, imagej=True, metadata={"axes": "TZYX"})
    assert "time 1 to time 2" in message(file)
    np.testing.assert_array_equal(read_volume(file, time=2).image[:], movie[1])
    assert "no time point 3" in message(file, time=3)


@pytest.mark.parametrize("letter", ["C", "T"])
def test_slices_saved_as_something_else_are_pointed_out(file: Path, letter: str) -> None:
    tifffile.imwrite(file, STACK, imagej=True, metadata={"axes": letter + "YX"})
    assert "if they are slices, say so with axes" in message(file)
    volume = read_volume(file, axes="ZYX")
    np.testing.assert_array_equal(volume.image[:], STACK)
    assert volume.axes_source.origin == "user"


# Axes


def test_plain_pages_are_slices_and_the_provenance_says_so(file: Path) -> None:
    tifffile.imwrite(file, STACK)
    volume = read_volume(file)
    assert volume.axes_source.origin == "assumed"
    assert "7 pages are taken as z" in volume.axes_source.text
    assert volume.voxel_size_um is None
    assert volume.voxel_size_source.origin == "unknown"


@pytest.mark.parametrize("shape", [(7, 2, 33, 45), (2, 7, 33, 45), (3, 33, 45), (2, 3, 4, 33, 45)])
def test_axes_that_could_be_anything_are_asked_for(file: Path, shape: tuple[int, ...]) -> None:
    tifffile.imwrite(file, np.zeros(shape, np.uint16), photometric="minisblack")
    text = message(file)
    assert "with axes" in text
    assert "x".join(map(str, shape)) in text


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 4), (1, 4, 1)])
def test_images_of_a_voxel_or_a_line_are_read(file: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(file, array, photometric="minisblack", metadata=None)
    volume = read_volume(file)
    np.testing.assert_array_equal(np.squeeze(volume.image[:]), np.squeeze(array))
    tifffile.imwrite(file, array, photometric="minisblack")
    np.testing.assert_array_equal(np.squeeze(read_volume(file).image[:]), np.squeeze(array))


def test_user_axes_are_obeyed_and_checked(file: Path) -> None:
    array = np.moveaxis(TWO_CHANNELS, 1, -1)
    tifffile.imwrite(file, array, photometric="minisblack")
    volume = read_volume(file, axes="zyxc", channel=1)
    np.testing.assert_array_equal(volume.image[:], TWO_CHANNELS[:, 0])
    assert "names 3" in message(file, axes="ZYX")
    assert "at most once" in message(file, axes="ZZYX")
    assert "Y and X always" in message(file, axes="TCZX")
    assert "make no image" in message(file, axes="QZYX")


def test_axes_without_meaning_for_cells_are_refused(file: Path) -> None:
    tifffile.imwrite(file, TWO_CHANNELS, metadata={"axes": "ZAYX"})
    assert "angle" in message(file)


# Files that cannot be segmented


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "none.tif")
    assert "is a folder" in message(tmp_path)
    (tmp_path / "empty.tif").touch()
    assert "0 bytes" in message(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("id,volume\n1,2\n" * 50)
    assert "text.tif is no TIFF file" in message(tmp_path / "text.tif")
    (tmp_path / "short.tif").write_bytes(b"II*\0")
    assert "truncated or damaged" in message(tmp_path / "short.tif")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(file: Path) -> None:
    tifffile.imwrite(file, STACK)
    file.chmod(0)
    assert "permissions" in message(file)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        {"tile": (16, 16), "bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_truncated_files_are_never_read_as_if_whole(
    file: Path, options: dict[str, Any], share: float
) -> None:
    tifffile.imwrite(file, STACK, **options)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    try:
        volume = read_volume(file)
    except InputError as error:
        assert "truncated or damaged" in str(error)  # noqa: PT017
    else:
        # ImageJ's voxels come first: only page directories that nobody needs were lost.
        np.testing.assert_array_equal(volume.image[:], STACK)


@settings(max_examples=200)
@given(
    position=st.integers(0, 100_000),
    garbage=st.binary(min_size=1, max_size=40),
    options=st.sampled_from(
        [
            {},
            {"compression": "zlib"},
            {"imagej": True, "metadata": {"axes": "ZYX", "unit": "um", "spacing": 2.0}},
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.5}},
            {"tile": (16, 16), "bigtiff": True},
        ]
    ),
)
def test_damage_gives_an_error_or_an_image_but_no_traceback(
    tmp_path_factory: pytest.TempPathFactory,
    position: int,
    garbage: bytes,
    options: dict[str, Any],
) -> None:
    file = tmp_path_factory.mktemp("damage") / "stack.tif"
    tifffile.imwrite(file, STACK[:5, :9, :9], **options)
    whole = bytearray(file.read_bytes())
    start = position % len(whole)
    whole[start : start + len(garbage)] = garbage
    file.write_bytes(whole)
    try:
        volume = read_volume(file)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert volume.image[:].shape == volume.shape


def test_complex_images_are_refused(file: Path) -> None:
    tifffile.imwrite(file, STACK.astype(np.complex64))
    assert "complex" in message(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_voxels_are_refused_in_the_segmented_channel_only(
    file: Path, value: float
) -> None:
    image = TWO_CHANNELS.astype(np.float32)
    image[2, 1, 3, 4] = value
    tifffile.imwrite(file, image, imagej=True, metadata={"axes": "ZCYX"})
    assert read_volume(file, channel=1).segmented_channel == 0
    text = message(file, channel=2)
    assert "1 of 2400 voxels of channel 2 is NaN or infinite" in text


def test_files_of_several_images_are_refused_but_thumbnails_are_not(file: Path) -> None:
    with tifffile.TiffWriter(file) as tif:
        tif.write(STACK, metadata={"axes": "ZYX"})
        tif.write(STACK[0, :20, :20], metadata={"axes": "YX"})
    np.testing.assert_array_equal(read_volume(file).image[:], STACK)
    with tifffile.TiffWriter(file) as tif:
        tif.write(STACK, metadata={"axes": "ZYX"})
        tif.write(STACK[:, :30], metadata={"axes": "ZYX"})
    assert "2 images (1 = 7x33x45, 2 = 7x30x45) that are no parts of one stack" in message(file)
    np.testing.assert_array_equal(read_volume(file, series=2).image[:], STACK[:, :30])
    assert "no image '3'; it holds 2" in message(file, series=3)


@pytest.mark.parametrize("said", ["0", "'Pixels'", "", "(3, 5)"])
def test_numbers_and_keys_are_no_reasons_for_damage(said: str) -> None:
    assert str(damaged("a.tif", said)) == "a.tif is truncated or damaged; copy or save it again"
    assert "damaged (not a TIFF)" in str(damaged("a.tif", f"<File {said}> not a\nTIFF"))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("read_by", [read_volume, tifffile.imread])
def test_a_file_is_not_blamed_for_another_that_is_read_at_the_same_time(
    file: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None, read_by: Any
) -> None:
    tifffile.imwrite(file, STACK, compression=compression)
    other = file.with_name("other.tif")
    other.write_bytes(b"II*\0nothing")
    begin = threading.Event()
    ready = ThreadPoolExecutor(1)
    others = [ready.submit(lambda: begin.wait() and read_by(other))]

    def while_others_are_read(work: Any) -> Any:
        def both(*arguments: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                begin.set()
                others.append(ready.submit(read_by, other))
                wait(others, timeout=0.2)
            return work(*arguments)

        return both

    for name in ("_read_open", "_decode_pages"):
        monkeypatch.setattr(tiff, name, while_others_are_read(getattr(tiff, name)))
    propagate = logging.getLogger("tifffile").propagate
    with ready:
        np.testing.assert_array_equal(read_array(file), STACK)
    assert len(others) > 1
    # tifffile alone gives an array without voxels.
    assert {type(each.exception()) for each in others} <= {InputError, type(None)}
    assert (others[0].exception() is None) == (read_by is tifffile.imread)
    assert logging.getLogger("tifffile").propagate == propagate


def test_an_imagej_file_that_is_half_written_gives_no_bare_number(file: Path) -> None:
    tifffile.imwrite(file, STACK, imagej=True, metadata={"axes": "ZYX"})
    whole = file.read_bytes()
    for length in (*range(8, 600, 24), len(whole) // 2):
        file.write_bytes(whole[:length])
        try:
            read_volume(file)
        except InputError as error:
            assert not re.search(r"\(\W*\d*\W*\)", error.message), error.message  # noqa: PT017


def test_an_image_that_is_called_like_the_number_of_another_is_named(file: Path) -> None:
    with tifffile.TiffWriter(file, ome=True) as tif:
        for name, image in (("2", STACK), ("1", STACK[:, :30]), ("third", STACK[:, :20])):
            tif.write(image, metadata={"axes": "ZYX", "Name": name})
    volume = read_volume(file, series="1")
    assert volume.shape == STACK.shape
    assert (
        "series 1 of 3, called '2'; for the one that is called '1' give --series 2"
        in (volume.warnings[0])
    )
    assert read_volume(f"{file}:2").warnings
    assert read_volume(file, series="third").shape == STACK[:, :20].shape
    assert not read_volume(file, series="third").warnings


def write_ome_in_two_files(folder: Path) -> Path:
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        'SizeX="45" SizeY="33" SizeZ="7" SizeC="1" SizeT="1" PhysicalSizeX="0.5">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="4">'
        '<UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstZ="4" IFD="0" PlaneCount="3">'
        '<UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    for name, planes, uuid in (("a", STACK[:4], "1"), ("b", STACK[4:], "2")):
        description = xml.replace('UUID="urn:uuid:1">', f'UUID="urn:uuid:{uuid}">', 1)
        tifffile.imwrite(
            folder / f"{name}.ome.tif",
            planes,
            description=description.encode(),
            metadata=None,
            compression="zlib",
            photometric="minisblack",
        )
    return folder / "a.ome.tif"


def test_ome_tiff_spread_over_files_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = write_ome_in_two_files(tmp_path)
    np.testing.assert_array_equal(read_volume(path).image[:], STACK)
    (tmp_path / "b.ome.tif").unlink()
    assert "files are missing (b.ome.tif)" in message(path)


@pytest.mark.parametrize("described_in", ["a.ome.tif", "set.companion.ome"])
def test_a_member_of_an_ome_set_stands_for_the_whole_set(tmp_path: Path, described_in: str) -> None:
    first = write_ome_in_two_files(tmp_path)
    pointer = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:2">'
        f'<BinaryOnly MetadataFile="{described_in}" UUID="urn:uuid:1"/></OME>'
    )
    if described_in.endswith(".ome"):
        with tifffile.TiffFile(first) as tif:
            text = tif.ome_metadata.replace('UUID="urn:uuid:1">', 'UUID="urn:uuid:3">', 1)
        (tmp_path / described_in).write_text(text, encoding="utf-8")
    member = tmp_path / "b.ome.tif"
    options = {"metadata": None, "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(member, STACK[4:], description=pointer.encode(), **options)
    volume = read_volume(member)
    np.testing.assert_array_equal(volume.image[:], STACK)
    assert volume.voxel_size_um == (None, None, 0.5)
    assert "the whole set was read" in volume.warnings[0]
    (tmp_path / described_in).unlink()
    assert f"{described_in} that describes the set does not lie beside it" in message(member)


def test_a_description_that_points_at_itself_is_refused(file: Path) -> None:
    pointer = '<OME UUID="urn:uuid:2"><BinaryOnly MetadataFile="stack.tif" UUID="a"/></OME>'
    tifffile.imwrite(file, STACK, description=pointer, metadata=None)
    assert "does not lie beside it" in message(file)


# Pages that are not what the first one and the description promise


@pytest.mark.parametrize("odd", [0, 3, 6])
@pytest.mark.parametrize("slices", [7, 30])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["dtype", "shape"])
def test_slices_of_another_kind_are_refused_with_their_number(
    file: Path, odd: int, slices: int, compression: str | None, kind: str
) -> None:
    odd = slices - 1 if odd == 6 else odd
    with tifffile.TiffWriter(file) as tif:
        for z in range(slices):
            plane = STACK[z % 7]
            if z == odd:
                plane = (plane // 256).astype(np.uint8) if kind == "dtype" else plane[:-1]
            tif.write(plane, metadata=None, contiguous=False, compression=compression)
    text = message(file)
    if f"page {odd + 1} is" not in text:
        # At the ends the odd one may be an image of its own.
        assert odd in (0, slices - 1)
        assert "2 images" in text


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("description", "held", "shape", "words"),
    [
        ("slices=10", 6, (6, 33, 45), "describes 10 images and holds 6, as when"),
        ("channels=2\nslices=5\nhyperstack=true", 7, (3, 33, 45), "3 slices of 2 channels"),
        ("frames=3\nslices=2\nhyperstack=true", 5, (2, 33, 45), "2 time points of 2 slices"),
        ("frames=3\nslices=4\nhyperstack=true", 3, (3, 33, 45), "read: 3 slices"),
        ("slices=5", 7, (5, 33, 45), "describes 5 images and holds 7; read: 5 slices"),
    ],
)
def test_stacks_whose_recording_was_stopped_are_read_with_a_warning(
    file: Path,
    compression: str | None,
    description: str,
    held: int,
    shape: tuple[int, ...],
    words: str,
) -> None:
    text = f"ImageJ=1.53t\nimages=99\n{description}\nunit=um\nspacing=2.0\n"
    with tifffile.TiffWriter(file) as tif:
        for z in range(held):
            tif.write(
                STACK[z],
                description=text if z == 0 else None,
                metadata=None,
                contiguous=False,
                compression=compression,
                resolution=(4, 4),
            )
    channel = 2 if "channels" in description else None
    volume = read_volume(file, channel=channel, time=2 if "time points" in words else None)
    assert volume.shape == shape
    assert volume.voxel_size_um == (2.0, 0.25, 0.25)
    assert words in volume.warnings[0]
    first, step = (1, 2) if channel else (2 if "time points" in words else 0, 1)
    np.testing.assert_array_equal(volume.image[:], STACK[first::step][: shape[0]])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_page_of_many_is_a_damaged_file(file: Path, compression: str | None) -> None:
    text = "ImageJ=1.53t\nimages=10\nslices=10\n"
    tifffile.imwrite(file, STACK[0], description=text, metadata=None, compression=compression)
    assert "truncated or damaged" in message(file)


# Compression


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["tiff_lzw", "raw"])
def test_pages_are_read_as_they_are_stored_whatever_their_orientation(
    file: Path, orientation: int, compression: str
) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(plane) for plane in STACK]
    pictures[0].save(
        file,
        save_all=True,
        append_images=pictures[1:],
        compression=compression,
        tiffinfo={274: orientation},
    )
    np.testing.assert_array_equal(read_volume(file).image[:], STACK)


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_a_codec_that_is_not_installed_is_named_with_what_brings_it(
    file: Path, command: str
) -> None:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("imagecodecs is installed")
    tifffile.imwrite(file, STACK)
    with tifffile.TiffFile(file) as tif:
        places = [page.tags["Compression"].valueoffset for page in tif.pages]
    content = bytearray(file.read_bytes())
    for place in places:
        content[place : place + 2] = (34887).to_bytes(2, "little")
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"LERC, .* pip install 'cellrt\[codecs\]'"):
        read_volume(file) if command == "segment" else read_array(file)


def test_mistakes_of_ours_are_not_blamed_on_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*arguments: object) -> None:
        raise KeyError("a mistake")

    tifffile.imwrite(file, STACK)
    monkeypatch.setattr("cellrt.runtime.image.formats.tiff.stated_size", mistaken)
    with pytest.raises(KeyError, match="a mistake"):
        read_volume(file)


CASES = DATA.parent / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="odd files (../shared/cases) are absent")
def test_odd_files_that_users_met() -> None:
    assert read_volume(CASES / "overview_first.ome.tif").voxel_size_um == (0.5, 0.5, 0.5)
    assert read_volume(CASES / "overview_first.ome.tif").channel_names == ("DAPI",)
    assert "stack_0.ome.tif" in message(CASES / "ome_member_binaryonly.ome.tif")
    assert read_volume(CASES / "bioformats_export.tif").voxel_size_um == (None, 0.5, 0.5)
    turned = [read_volume(CASES / f"orientation3_{kind}.tif").image[:] for kind in ("lzw", "None")]
    np.testing.assert_array_equal(*turned)
    assert read_array(CASES / "labels_lzw.tif").max() > 1
    assert "page 6 is 80x80 uint8" in message(CASES / "mixed_dtype.tif")


# Real files


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "size", "letters"),
    [
        ("nuclei/anisotropic_raw.tif", (37, 118, 132), (4.0, 0.8286, 0.8286), "ZYX"),
        ("nuclei/drosophila_envelope_raw.tif", (14, 224, 305), (None, 0.24165, 0.24165), "ZYX"),
        ("nuclei/embryos/images/Emb01_t501.ome.tif", (51, 124, 127), (1.75, 0.8, 0.8), "ZYX"),
        ("nuclei/nuclei_75.tif", (75, 75, 75), None, "ZYX"),
        ("nuclei/small_31.tif", (31, 61, 57), None, "ZYX"),
        ("nuclei/mouse_brain_raw.tif", (124, 86, 94), None, "ZYX"),
        ("labels_only/hipsc_cells.tif", (76, 1024, 1024), None, "ZYX"),
        ("cells2d/nuclei_512.tif", (1, 512, 512), None, "YX"),
        ("cells2d/maize_walls.tif", (1, 640, 639), None, "YX"),
    ],
)
def test_real_files(
    name: str, shape: tuple[int, ...], size: tuple[float | None, ...] | None, letters: str
) -> None:
    volume = read_volume(DATA / name)
    assert volume.shape == shape
    assert volume.file_axes == letters
    if size is None:
        assert volume.voxel_size_um is None
    else:
        assert volume.voxel_size_um is not None
        for found, expected in zip(volume.voxel_size_um, size, strict=True):
            assert found == (None if expected is None else pytest.approx(expected, rel=1e-3))
    assert np.ptp(volume.image[:]) > 0


@needs_data
def test_real_file_with_two_channels() -> None:
    path = DATA / "nuclei" / "two_channel_raw.tif"
    assert "2 channels" in message(path)
    volume = read_volume(path, channel=2)
    assert [source.shape for source in volume.channels] == [(45, 130, 133)] * 2
    assert volume.voxel_size_um == pytest.approx((0.4994, 0.5119, 0.5119), rel=1e-3)


@pytest.mark.parametrize(
    ("colours", "words"),
    [
        (np.stack([np.zeros(256), np.arange(256) * 257, np.zeros(256)]), None),  # green
        (np.random.default_rng(1).integers(0, 65536, (3, 256)), "table of colours"),
    ],
)
def test_numbers_of_colours_are_pointed_out_but_not_a_table_for_display(
    file: Path, colours: np.ndarray, words: str | None
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    tifffile.imwrite(file, image, photometric="palette", colormap=colours.astype(np.uint16))
    volume = read_volume(file)
    assert np.array_equal(np.asarray(volume.image[0]), image)
    assert [words in text for text in volume.warnings] == [True] if words else not volume.warnings


def test_an_image_that_says_that_its_smallest_value_is_white_is_pointed_out(file: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    tifffile.imwrite(file, image, photometric="miniswhite")
    volume = read_volume(file)
    assert np.array_equal(np.asarray(volume.image[0]), image)
    assert "smallest value is white" in volume.warnings[0]
