"""Voxel size: read with its unit, or unknown with the reason; never a placeholder taken as true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellrt.errors import InputError, UsageError
from cellrt.runtime.image.reading import read_volume
from cellrt.runtime.image.voxel_size import um_per_unit

STACK = np.random.default_rng(0).integers(0, 60_000, (7, 33, 45)).astype(np.uint16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stack.tif"


@pytest.mark.parametrize("unit", ["µm", "μm", "um", "micron", "Microns", "\\u00B5m", " um "])
def test_names_of_the_micrometre(unit: str) -> None:
    assert um_per_unit(unit) == 1.0


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("micrometres", 1.0),
        ("Micrometre", 1.0),
        ("millimeters", 1e3),
        ("millimetre", 1e3),
        ("nanometers", 1e-3),
        ("centimetres", 1e4),
        ("metres", 1e6),
        ("inch", 25_400.0),
        ("inches", 25_400.0),
        ("Å", 1e-4),
        ("angstroms", 1e-4),
    ],
)
def test_units_in_every_spelling(unit: str, um: float) -> None:
    assert um_per_unit(unit) == pytest.approx(um)


@pytest.mark.parametrize("unit", [None, "", "pixel", "sec", "reference frame"])
def test_units_that_measure_nothing(unit: str | None) -> None:
    assert um_per_unit(unit) is None


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3)],
)
def test_imagej_units(file: Path, unit: str, factor: float) -> None:
    resolution = (factor / 0.2, factor / 0.25)
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 1.5 / factor}
    tifffile.imwrite(file, STACK, imagej=True, resolution=resolution, metadata=metadata)
    volume = read_volume(file)
    assert volume.voxel_size_um == pytest.approx((1.5, 0.25, 0.2), rel=1e-6)
    assert volume.full_voxel_size_um == volume.voxel_size_um
    assert str(volume.voxel_size_source) == "file: ImageJ calibration"


@pytest.mark.parametrize(
    ("metadata", "resolution", "expected", "words"),
    [
        ({"unit": "um"}, (5, 5), (None, 0.2, 0.2), "z missing"),
        ({"unit": "um", "spacing": -2.0}, (5, 5), (2.0, 0.2, 0.2), "ImageJ"),
        ({"unit": "um", "spacing": float("nan")}, (5, 5), (None, 0.2, 0.2), "not possible"),
        ({"unit": "um", "spacing": 1.0}, (1, 1), None, "exactly 1 µm"),
        ({"unit": "inch", "spacing": 1.0}, (72, 72), None, "'inch'"),
        ({"unit": "inch", "spacing": 1.0}, (300, 300), None, "printing resolution"),
        ({"unit": "inch", "spacing": 2e-4}, (50_800, 50_800), (5.08, 0.5, 0.5), "ImageJ"),
        ({"unit": "pixel", "spacing": 2.0}, (5, 5), None, "'pixel'"),
        ({"spacing": 2.0}, (5, 5), None, "no unit"),
        ({}, (1, 1), None, "no unit"),
    ],
    ids=str,
)
def test_imagej_sizes_that_are_missing_or_nonsense(
    file: Path,
    metadata: dict[str, Any],
    resolution: tuple[int, int],
    expected: tuple[float, ...] | None,
    words: str,
) -> None:
    tifffile.imwrite(
        file, STACK, imagej=True, resolution=resolution, metadata={"axes": "ZYX", **metadata}
    )
    volume = read_volume(file)
    if expected is None:
        assert volume.voxel_size_um is None
        assert volume.voxel_size_source.origin == "unknown"
    else:
        assert volume.voxel_size_um == pytest.approx(expected)
        assert volume.voxel_size_source.origin == "file"
    assert words in volume.voxel_size_source.text
    assert (volume.full_voxel_size_um is None) == (expected is None or None in expected)


def test_ome_units_are_converted(file: Path) -> None:
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeZ": 1500.0,
        "PhysicalSizeZUnit": "nm",
        "PhysicalSizeY": 0.00025,
        "PhysicalSizeYUnit": "mm",
        "PhysicalSizeX": 0.2,
    }
    tifffile.imwrite(file, STACK, ome=True, metadata=metadata)
    assert read_volume(file).voxel_size_um == pytest.approx((1.5, 0.25, 0.2))


@pytest.mark.parametrize("axis", "zyx")
def test_a_size_of_zero_is_refused_unless_the_user_knows_better(file: Path, axis: str) -> None:
    sizes = {f"PhysicalSize{a.upper()}": 0.0 if a == axis else 0.3 for a in "zyx"}
    tifffile.imwrite(file, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    with pytest.raises(InputError, match=f"along {axis} is 0 µm .*voxel_size"):
        read_volume(file)
    volume = read_volume(file, voxel_size_um=(1.0, 0.5, 0.5))
    assert volume.voxel_size_um == (1.0, 0.5, 0.5)


def test_zero_spacing_of_an_imagej_stack_is_refused(file: Path) -> None:
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 0.0}
    tifffile.imwrite(file, STACK, imagej=True, resolution=(5, 5), metadata=metadata)
    with pytest.raises(InputError, match="along z is 0 µm"):
        read_volume(file)


def test_the_z_size_of_a_single_slice_does_not_matter(file: Path) -> None:
    sizes = {"PhysicalSizeZ": 0.0, "PhysicalSizeY": 0.3, "PhysicalSizeX": 0.3}
    tifffile.imwrite(file, STACK[0], ome=True, metadata={"axes": "YX", **sizes})
    assert read_volume(file).voxel_size_um == (None, 0.3, 0.3)


@pytest.mark.parametrize("size", [float("nan"), 1e9])
def test_impossible_ome_sizes_are_unknown(file: Path, size: float) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeZ": size, "PhysicalSizeY": 0.3, "PhysicalSizeX": 0.3}
    tifffile.imwrite(file, STACK, ome=True, metadata=metadata)
    volume = read_volume(file)
    assert volume.voxel_size_um == (None, 0.3, 0.3)
    assert "not possible" in volume.voxel_size_source.text


def test_ome_placeholder_is_unknown(file: Path) -> None:
    sizes = {f"PhysicalSize{axis}": 1.0 for axis in "XYZ"}
    tifffile.imwrite(file, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    assert read_volume(file).voxel_size_um is None


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("CENTIMETER", 20_000, (None, 0.5, 0.5)),
        ("CENTIMETER", 28.35, None),
        ("INCH", 300, None),
        ("INCH", 50_800, (None, 0.5, 0.5)),
        ("NONE", 5, None),
    ],
)
def test_resolution_tags_alone(
    file: Path, unit: str, per_unit: float, expected: tuple[float, ...] | None
) -> None:
    tifffile.imwrite(
        file, STACK, resolution=(per_unit, per_unit), resolutionunit=unit, metadata=None
    )
    size = read_volume(file).voxel_size_um
    assert size == (None if expected is None else pytest.approx(expected))


def test_user_voxel_size_wins(file: Path) -> None:
    tifffile.imwrite(file, STACK, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5})
    volume = read_volume(file, voxel_size_um=(2, 0.3, 0.3))
    assert volume.voxel_size_um == (2.0, 0.3, 0.3)
    assert volume.voxel_size_source.origin == "user"


@pytest.mark.parametrize(
    "size", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan")), (1, 1, float("inf")), (1, 1)]
)
def test_impossible_user_sizes_are_refused(file: Path, size: tuple[float, ...]) -> None:
    tifffile.imwrite(file, STACK)
    with pytest.raises(UsageError, match=r"three numbers from 0\.001 to 200, z y x in µm"):
        read_volume(file, voxel_size_um=size)


# Several places that know it, and programs with places of their own


def test_tags_are_a_second_source_where_imagejs_description_has_no_unit(file: Path) -> None:
    # As Bio-Formats exports it.
    tifffile.imwrite(
        file,
        STACK,
        description="ImageJ=\nhyperstack=true\nimages=7\nchannels=1\nslices=7\nframes=1",
        metadata=None,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    volume = read_volume(file)
    assert volume.voxel_size_um == (None, 0.5, 0.5)
    assert volume.voxel_size_source.text == "TIFF resolution tags; z missing"


def test_tags_are_a_second_source_where_ome_xml_has_no_sizes(file: Path) -> None:
    options = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(file, STACK, ome=True, metadata={"axes": "ZYX"}, **options)
    assert read_volume(file).voxel_size_um == (None, 0.5, 0.5)


def test_a_unit_that_is_no_length_is_a_word_on_the_tags_too(file: Path) -> None:
    tifffile.imwrite(
        file,
        STACK,
        description="ImageJ=1.53t\nimages=7\nslices=7\nunit=pixel",
        metadata=None,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    volume = read_volume(file)
    assert volume.voxel_size_um is None
    assert "'pixel'" in volume.voxel_size_source.text


def test_sizes_are_those_of_the_image_that_is_read(file: Path) -> None:
    with tifffile.TiffWriter(file, ome=True) as tif:
        for name, image, size in (("overview", STACK[0, ::2, ::2], 8.0), ("stack", STACK, 0.5)):
            sizes = {f"PhysicalSize{axis}": size for axis in "XYZ"}
            channels = {"Channel": {"Name": [f"{name}'s channel"]}}
            axes = "ZYX"[-image.ndim :]
            tif.write(image, metadata={"axes": axes, "Name": name, **sizes, **channels})
    volume = read_volume(file)
    assert volume.voxel_size_um == (0.5, 0.5, 0.5)
    assert volume.channel_names == ("stack's channel",)
    overview = read_volume(file, series=1)
    assert overview.shape == (1, 17, 23)
    assert overview.voxel_size_um == (8.0, 8.0, 8.0)
    assert read_volume(file, series="overview").channel_names == ("overview's channel",)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("upwards", [True, False])
def test_metaseries_pages_describe_themselves(file: Path, calibrated: bool, upwards: bool) -> None:
    with tifffile.TiffWriter(file) as tif:
        for z, plane in enumerate(STACK):
            properties = {
                "spatial-calibration-state": "on" if calibrated else "off",
                "spatial-calibration-x": "0.325",
                "spatial-calibration-y": "0.325",
                "spatial-calibration-units": "um",
                "z-position": str(100 + 1.5 * (z if upwards else -z)),
            }
            lines = "".join(
                f'<prop id="{name}" type="float" value="{value}"/>'
                for name, value in properties.items()
            )
            tif.write(
                plane,
                description=f"<MetaData><PlaneInfo>{lines}</PlaneInfo></MetaData>",
                software="MetaSeries",
                metadata=None,
                contiguous=False,
            )
    volume = read_volume(file)
    assert volume.voxel_size_um == ((1.5, 0.325, 0.325) if calibrated else None)
    assert ("MetaSeries" if calibrated else "not calibrated") in volume.voxel_size_source.text


def test_metamorph_stacks_have_their_own_tags(file: Path) -> None:
    import struct

    def fractions(*values: tuple[int, int]) -> bytes:
        return b"".join(struct.pack("<II", *value) for value in values)

    planes = len(STACK)
    tags = [
        (33629, 5, planes, fractions(*[(3, 2), (2_459_000, 0), (2_459_000, 0)] * planes), True),
        (33628, 4, 3, struct.pack("<6I", 4, 0, 5, 0, 6, 0), True),
    ]
    # One page describes all slices, which follow each other.
    tifffile.imwrite(file, STACK[0], metadata=None, extratags=tags, photometric="minisblack")
    with tifffile.TiffFile(file) as tif:
        calibration, distances = (tif.pages.first.tags[code] for code in (33628, 33629))
    content = bytearray(file.read_bytes()) + STACK[1:].tobytes()
    # Calibration lies behind offsets.
    end = len(content)
    at = calibration.valueoffset
    content[at : at + 24] = struct.pack("<6I", 4, end, 5, end + 8, 6, end + 16)
    content += fractions((1, 4), (1, 4)) + struct.pack("<I", 3) + b"um\0"
    # MetaMorph counts entries and slices, not numbers.
    for tag, count in ((calibration, 3), (distances, planes)):
        content[tag.offset + 4 : tag.offset + 8] = struct.pack("<I", count)
    file.write_bytes(content)
    volume = read_volume(file)
    np.testing.assert_array_equal(volume.image[:], STACK)
    assert volume.voxel_size_um == (1.5, 0.25, 0.25)
    assert "MetaMorph" in volume.voxel_size_source.text


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"PixelSizeUm": 0.25, "z-step_um": -0.5}, (0.5, 0.25, 0.25)),
        ({"PixelSizeUm": 0.25}, (None, 0.25, 0.25)),
        ({"PixelSizeUm": 0, "z-step_um": 0}, None),
        ({"PixelSizeUm": 1.0}, None),
        ("no JSON", None),
    ],
)
def test_micro_managers_metadata_are_read(file: Path, facts: Any, expected: Any) -> None:
    import json

    text = facts if isinstance(facts, str) else json.dumps(facts)
    tifffile.imwrite(file, STACK, metadata=None, extratags=[(51123, 2, 0, text, True)])
    volume = read_volume(file)
    assert volume.voxel_size_um == expected
