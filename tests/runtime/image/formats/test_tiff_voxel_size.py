"""Voxel size: read with its unit, or unknown with the reason; never a placeholder taken as true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellrt.errors import InputError
from cellrt.runtime.image.formats import read_volume
from cellrt.runtime.image.voxel_size import um_per_unit

STACK = np.random.default_rng(0).integers(0, 60_000, (7, 33, 45)).astype(np.uint16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stack.tif"


@pytest.mark.parametrize("unit", ["µm", "μm", "um", "micron", "Microns", "\\u00B5m", " um "])
def test_names_of_the_micrometre(unit: str) -> None:
    assert um_per_unit(unit) == 1.0


@pytest.mark.parametrize("unit", [None, "", "pixel", "inch", "sec", "reference frame"])
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
    with pytest.raises(InputError, match=f"along {axis} is 0 µm .*--voxel-size"):
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
    with pytest.raises(InputError, match="three numbers above 0, z y x in µm"):
        read_volume(file, voxel_size_um=size)
