"""Voxel size from the metadata of a TIFF file, or the reason why it is not known."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import tifffile

from cellrt.errors import InputError
from cellrt.runtime.image.volume import PartialVoxelSize, Provenance

SOFTWARE = "cellrt"
"""Software tag of files that cellrt wrote: a voxel size of exactly 1 µm is meant there."""

_UM_PER_UNIT = {
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometers": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
}
# What a light microscope can record; beyond, it is a printing resolution or nonsense.
_SMALLEST_UM, _LARGEST_UM = 1e-3, 200.0


def voxel_size_from_file(
    tif: tifffile.TiffFile, where: str, slices: int
) -> tuple[PartialVoxelSize | None, Provenance]:
    """Voxel size (z, y, x) in µm, with components that are unknown as None, and its source.

    Parameters
    ----------
    tif : tifffile.TiffFile
    where : str
        The file's name, for messages.
    slices : int
        Length of the z axis; the z size of a single slice means nothing.

    Raises
    ------
    InputError
        The file says that a size is 0: then its other figures cannot be trusted either.
    """
    sizes, reason, source = _stored_sizes(tif)
    if reason:
        return None, Provenance("unknown", reason)
    for axis, size in zip("zyx", sizes, strict=True):
        if size == 0 and (axis != "z" or slices > 1):
            raise InputError(
                f"{where}: its voxel size along {axis} is 0 µm ({source}), expected a length; "
                "give the true size with --voxel-size z y x"
            )
    trusted = str(tif.pages.first.tags.valueof("Software") or "").startswith(SOFTWARE)
    return _checked(sizes, trusted, source)


def um_per_unit(unit: str | None) -> float | None:
    """Micrometres in one ``unit``; None where the unit is no length, or of print, or missing."""
    if unit is None:
        return None
    if "\\u" in unit:
        unit = unit.encode("ascii", "backslashreplace").decode("unicode_escape")
    return _UM_PER_UNIT.get(unit.strip().strip("\x00").lower().replace("μ", "µ"))


def _stored_sizes(tif: tifffile.TiffFile) -> tuple[list[float | None], str, str]:
    """Sizes (z, y, x) as the file has them, the reason why it has none, and where they are from."""
    if tif.is_ome and tif.ome_metadata:
        return *_from_ome(tif.ome_metadata), "OME PhysicalSize"
    if tif.is_imagej and tif.imagej_metadata is not None:
        return *_from_imagej(tif, tif.imagej_metadata), "ImageJ calibration"
    if tif.is_lsm and tif.lsm_metadata:
        sizes: list[float | None] = [
            float(tif.lsm_metadata.get(f"VoxelSize{axis}", 0.0)) * 1e6 for axis in "ZYX"
        ]
        return sizes, "", "Zeiss LSM metadata"
    shaped = tif.shaped_metadata[0] if tif.is_shaped and tif.shaped_metadata else {}
    if "unit" in shaped:
        return *_from_imagej(tif, shaped), "image description"
    return *_from_resolution_tags(tif), "TIFF resolution tags"


def _checked(
    sizes: list[float | None], trusted: bool, source: str
) -> tuple[PartialVoxelSize | None, Provenance]:
    """Drop impossible components and placeholders, and say so."""
    notes = []
    kept: list[float | None] = []
    for axis, size in zip("zyx", sizes, strict=True):
        if size is None or (math.isfinite(size) and _SMALLEST_UM <= size <= _LARGEST_UM):
            kept.append(size)
        else:
            notes.append(f"{axis} size {size:g} µm is not possible and ignored")
            kept.append(None)
    if all(size is None for size in kept):
        return None, Provenance("unknown", "; ".join(notes) or f"none in the file ({source})")
    if not trusted and all(size is None or size == 1.0 for size in kept):
        return None, Provenance(
            "unknown",
            f"the file says exactly 1 µm ({source}), which is what software writes when it does "
            "not know; if it is true, say so with --voxel-size",
        )
    missing = [axis for axis, size in zip("zyx", kept, strict=True) if size is None]
    if missing and not notes:
        notes.append(f"{', '.join(missing)} missing")
    return (kept[0], kept[1], kept[2]), Provenance("file", "; ".join([source, *notes]))


def _from_ome(xml: str) -> tuple[list[float | None], str]:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return [None] * 3, "the OME-XML of the file cannot be parsed"
    pixels = next((e for e in root.iter() if e.tag.rsplit("}", 1)[-1] == "Pixels"), None)
    if pixels is None:
        return [None] * 3, "the OME-XML of the file describes no pixels"
    sizes: list[float | None] = []
    for axis in "ZYX":
        value = pixels.get(f"PhysicalSize{axis}")
        # µm is the schema's default unit.
        factor = um_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(None if value is None or factor is None else _number(value) * factor)
    return sizes, ""


def _from_imagej(
    tif: tifffile.TiffFile, metadata: dict[str, Any]
) -> tuple[list[float | None], str]:
    unit = str(metadata.get("unit", ""))
    factor = um_per_unit(unit)
    if factor is None:
        named = f"the file's unit of length is {unit!r}" if unit.strip() else "it has no unit"
        return [None] * 3, f"calibration of the file not usable: {named}"
    x_per_unit, y_per_unit = _resolutions(tif)
    # Stages that move upwards make ImageJ files with negative spacing.
    z = abs(_number(metadata["spacing"])) if "spacing" in metadata else None
    z_factor = um_per_unit(str(metadata.get("zunit", unit)))
    y_factor = um_per_unit(str(metadata.get("yunit", unit)))
    sizes = [
        None if z is None or z_factor is None else z * z_factor,
        None if y_per_unit is None or y_factor is None else y_factor / y_per_unit,
        None if x_per_unit is None else factor / x_per_unit,
    ]
    return sizes, ""


def _from_resolution_tags(tif: tifffile.TiffFile) -> tuple[list[float | None], str]:
    unit = tif.pages.first.tags.valueof("ResolutionUnit")
    x_per_unit, y_per_unit = _resolutions(tif)
    if unit is None or int(unit) != 3 or x_per_unit is None or y_per_unit is None:
        return [None] * 3, "the file has no voxel size with a unit"
    sizes: list[float | None] = [None, 1e4 / y_per_unit, 1e4 / x_per_unit]
    if max(1e4 / y_per_unit, 1e4 / x_per_unit) > 20.0:
        return [None] * 3, "the file has a printing resolution only, no voxel size"
    return sizes, ""


def _resolutions(tif: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Pixels per unit along x and y; None where the tag is missing or zero."""
    values: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        value = tif.pages.first.tags.valueof(name)
        ratio = None
        if isinstance(value, tuple) and len(value) == 2 and value[0] and value[1]:
            ratio = value[0] / value[1]
        values.append(ratio)
    return values[0], values[1]


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan
