"""Voxel size as the metadata of a TIFF file states it, or the reason why it is not known."""

from __future__ import annotations

import math
from typing import Any

import tifffile

from cellrt.runtime.image.formats.tiff_ome import Element
from cellrt.runtime.image.stored import StatedSize
from cellrt.runtime.image.voxel_size import um_per_unit

SOFTWARE = "cellrt"
"""Software tag of files that cellrt wrote: a voxel size of exactly 1 µm is meant there."""

_Sizes = tuple[float | None, float | None, float | None]


def stated_size(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, pixels: Element | None
) -> StatedSize:
    """Voxel size (z, y, x) of a series, unchecked.

    Parameters
    ----------
    tif : tifffile.TiffFile
    series : tifffile.TiffPageSeries
        The image that is read; what the file says of others does not count.
    pixels : Element, optional
        Its description in OME-XML.
    """
    sizes, reason, source = _stored_sizes(tif, series, pixels)
    trusted = str(series.keyframe.tags.valueof("Software") or "").startswith(SOFTWARE)
    return StatedSize(sizes, source, reason, trusted)


def _stored_sizes(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, pixels: Element | None
) -> tuple[_Sizes, str, str]:
    """Sizes (z, y, x) as the file has them, the reason why it has none, and where they are from."""
    page = series.keyframe
    if pixels is not None:
        return _from_ome(pixels), "", "OME PhysicalSize"
    if tif.is_imagej and tif.imagej_metadata is not None:
        return *_from_imagej(page, tif.imagej_metadata), "ImageJ calibration"
    if tif.is_lsm and tif.lsm_metadata:
        z, y, x = (float(tif.lsm_metadata.get(f"VoxelSize{axis}", 0.0)) * 1e6 for axis in "ZYX")
        return (z, y, x), "", "Zeiss LSM metadata"
    shaped = tif.shaped_metadata[0] if tif.is_shaped and tif.shaped_metadata else {}
    if "unit" in shaped:
        return *_from_imagej(page, shaped), "image description"
    return *_from_resolution_tags(page), "TIFF resolution tags"


def _from_ome(pixels: Element) -> _Sizes:
    sizes: list[float | None] = []
    for axis in "ZYX":
        value = pixels.get(f"PhysicalSize{axis}")
        # µm is the schema's default unit.
        factor = um_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(None if value is None or factor is None else _number(value) * factor)
    return sizes[0], sizes[1], sizes[2]


def _from_imagej(page: tifffile.TiffPage, metadata: dict[str, Any]) -> tuple[_Sizes, str]:
    unit = str(metadata.get("unit", ""))
    factor = um_per_unit(unit)
    if factor is None:
        named = f"the file's unit of length is {unit!r}" if unit.strip() else "it has no unit"
        return (None, None, None), f"calibration of the file not usable: {named}"
    x_per_unit, y_per_unit = _resolutions(page)
    z = _number(metadata["spacing"]) if "spacing" in metadata else None
    z_factor = um_per_unit(str(metadata.get("zunit", unit)))
    y_factor = um_per_unit(str(metadata.get("yunit", unit)))
    sizes = (
        None if z is None or z_factor is None else z * z_factor,
        None if y_per_unit is None or y_factor is None else y_factor / y_per_unit,
        None if x_per_unit is None else factor / x_per_unit,
    )
    return sizes, ""


def _from_resolution_tags(page: tifffile.TiffPage) -> tuple[_Sizes, str]:
    unit = page.tags.valueof("ResolutionUnit")
    x_per_unit, y_per_unit = _resolutions(page)
    if unit is None or int(unit) != 3 or x_per_unit is None or y_per_unit is None:
        return (None, None, None), "the file has no voxel size with a unit"
    if max(1e4 / y_per_unit, 1e4 / x_per_unit) > 20.0:
        return (None, None, None), "the file has a printing resolution only, no voxel size"
    return (None, 1e4 / y_per_unit, 1e4 / x_per_unit), ""


def _resolutions(page: tifffile.TiffPage) -> tuple[float | None, float | None]:
    """Pixels per unit along x and y; None where the tag is missing or zero."""
    values: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        value = page.tags.valueof(name)
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
