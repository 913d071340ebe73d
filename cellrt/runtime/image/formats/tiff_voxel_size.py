"""Voxel size as the metadata of a TIFF file states it, or the reason why it is not known."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from cellrt.runtime.image.formats.tiff_ome import Element
from cellrt.runtime.image.stored import StatedSize
from cellrt.runtime.image.voxel_size import UM_PER_INCH, um_per_unit

SOFTWARE = "cellrt"
"""Software tag of files that cellrt wrote: a voxel size of exactly 1 µm is meant there."""
LABELS_SOFTWARE = f"{SOFTWARE} labels"
"""The same of files with labels, so that they are not taken for images to segment."""

# Printers and scanners have coarser pixels than this, microscopes hardly ever.
_PRINTING_UM = 20.0
_UM_PER_CENTIMETRE = 1e4
# Values of the tag ResolutionUnit.
_INCH, _CENTIMETRE = 2, 3

_Sizes = tuple[float | None, float | None, float | None]
_NONE: _Sizes = (None, None, None)


class _Statement(NamedTuple):
    """What one kind of metadata says: sizes (z, y, x) in µm, its name, and why it says nothing."""

    um: _Sizes
    source: str
    reason: str = ""


def stated_size(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, pixels: Element | None
) -> StatedSize:
    """Voxel size (z, y, x) of a series, unchecked.

    Programs write it into several places. The first that says anything counts, and what it leaves
    out is taken from the next that knows it.

    Parameters
    ----------
    tif : tifffile.TiffFile
    series : tifffile.TiffPageSeries
        The image that is read; what the file says of others does not count.
    pixels : Element, optional
        Its description in OME-XML.
    """
    found: list[float | None] = [None, None, None]
    sources: list[str] = []
    reason = source = ""
    for statement in _statements(tif, series, pixels):
        reason = reason or statement.reason
        source = source or statement.source
        new = [
            mine is None and theirs is not None
            for mine, theirs in zip(found, statement.um, strict=True)
        ]
        if any(new):
            sources.append(statement.source)
            found = [t if n else m for m, t, n in zip(found, statement.um, new, strict=True)]
    trusted = software_of(series).startswith(SOFTWARE)
    z, y, x = found
    if sources:
        return StatedSize((z, y, x), ", ".join(sources), "", trusted)
    return StatedSize(_NONE, source, reason, trusted)


def software_of(series: tifffile.TiffPageSeries) -> str:
    """Which program wrote a series, as far as its first page says."""
    return str(series.keyframe.tags.valueof("Software") or "")


def _statements(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, pixels: Element | None
) -> Iterator[_Statement]:
    """What the file says in all places, the most reliable first."""
    page = series.keyframe
    shaped = _shaped_metadata(tif, series)
    described = True
    if pixels is not None:
        ome = _from_ome(pixels)
        yield _Statement(ome, "OME PhysicalSize")
        described = any(size is not None for size in ome)
    elif tif.is_imagej and tif.imagej_metadata is not None:
        yield _from_imagej(page, tif.imagej_metadata, "ImageJ calibration")
        # A unit that is no length, such as "pixel", is a word on the tags as well.
        described = bool(str(tif.imagej_metadata.get("unit", "")).strip())
    elif tif.is_lsm and tif.lsm_metadata:
        z, y, x = (float(tif.lsm_metadata.get(f"VoxelSize{axis}", 0.0)) * 1e6 for axis in "ZYX")
        yield _Statement((z, y, x), "Zeiss LSM metadata")
    elif "unit" in shaped:
        yield _from_imagej(page, shaped, "image description")
    elif tif.is_stk and tif.stk_metadata:
        yield _from_metamorph(tif.stk_metadata)
    elif (page.description or "").startswith("<MetaData>"):
        yield _from_metaseries(series)
    else:
        described = False
    if tif.is_micromanager:
        yield _from_micromanager(tif, page)
    if not described:
        yield _from_resolution_tags(page)


def _shaped_metadata(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> dict[str, Any]:
    """What tifffile wrote beside the shape of this series."""
    if not tif.is_shaped or not tif.shaped_metadata:
        return {}
    numbers = [i for i, other in enumerate(tif.series) if other is series]
    number = numbers[0] if numbers else 0
    return dict(tif.shaped_metadata[min(number, len(tif.shaped_metadata) - 1)])


def _from_ome(pixels: Element) -> _Sizes:
    sizes: list[float | None] = []
    for axis in "ZYX":
        value = pixels.get(f"PhysicalSize{axis}")
        # µm is the schema's default unit.
        factor = um_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(None if value is None or factor is None else _number(value) * factor)
    return sizes[0], sizes[1], sizes[2]


def _from_imagej(page: tifffile.TiffPage, metadata: dict[str, Any], source: str) -> _Statement:
    unit = str(metadata.get("unit", ""))
    factor = um_per_unit(unit)
    if factor is None:
        named = f"the file's unit of length is {unit!r}" if unit.strip() else "it has no unit"
        return _Statement(_NONE, source, f"calibration of the file not usable: {named}")
    x_per_unit, y_per_unit = _resolutions(page)
    z = _number(metadata["spacing"]) if "spacing" in metadata else None
    z_factor = um_per_unit(str(metadata.get("zunit", unit)))
    y_factor = um_per_unit(str(metadata.get("yunit", unit)))
    y = None if y_per_unit is None or y_factor is None else y_factor / y_per_unit
    x = None if x_per_unit is None else factor / x_per_unit
    # Fiji calls the resolution of pictures that were made for printing a calibration in inches.
    if factor == UM_PER_INCH and max(y or 0.0, x or 0.0) > _PRINTING_UM:
        return _Statement(_NONE, source, "the file has a printing resolution only (unit 'inch')")
    return _Statement((None if z is None or z_factor is None else z * z_factor, y, x), source)


def _from_metamorph(metadata: dict[str, Any]) -> _Statement:
    """MetaMorph's own stacks (STK); zeros mean that nothing was calibrated."""
    source = "MetaMorph calibration"
    factor = um_per_unit(str(metadata.get("CalibrationUnits", "")))
    y, x = (_positive(metadata.get(f"{axis}Calibration"), factor) for axis in "YX")
    # Distances between slices in µm, one for each slice, 0 for some that have none.
    distances = np.abs(np.ravel(metadata.get("ZDistance", ())))
    z = _positive(np.median(distances[distances > 0]) if (distances > 0).any() else None, 1.0)
    return _Statement((z, y, x), source)


def _from_metaseries(series: tifffile.TiffPageSeries) -> _Statement:
    """MetaMorph and ImageXpress: each page describes itself in XML."""
    source = "MetaSeries calibration"
    pages = [page.aspage() for page in series.pages[:2] if page is not None]
    properties = [_metaseries_properties(page.description or "") for page in pages]
    first = properties[0]
    if first.get("spatial-calibration-state", "on").lower() in ("off", "0", "false"):
        return _Statement(_NONE, source, "the file says that it is not calibrated")
    factor = um_per_unit(first.get("spatial-calibration-units"))
    y, x = (_positive(first.get(f"spatial-calibration-{axis}"), factor) for axis in "yx")
    heights = [_number(page["z-position"]) for page in properties if "z-position" in page]
    z = _positive(abs(heights[1] - heights[0]), 1.0) if len(heights) == 2 else None
    return _Statement((z, y, x), source)


def _metaseries_properties(description: str) -> dict[str, str]:
    try:
        root = ElementTree.fromstring(description.strip("\0 \r\n"))
    except ElementTree.ParseError:
        return {}
    return {e.get("id", ""): e.get("value", "") for e in root.iter("prop")}


def _from_micromanager(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> _Statement:
    """Micro-Manager's own metadata; a pixel size of 0 or 1 means that nothing was calibrated."""
    of_page = page.tags.valueof(51123)
    if isinstance(of_page, (str, bytes)):
        try:
            of_page = json.loads(of_page)
        except ValueError:
            of_page = None
    facts = {**_micromanager_summary(tif), **(of_page if isinstance(of_page, dict) else {})}
    pixel = _positive(facts.get("PixelSizeUm", facts.get("PixelSize_um")), 1.0)
    z = _positive(facts.get("z-step_um"), 1.0, signed=True)
    return _Statement((z, *(2 * (None if pixel == 1.0 else pixel,))), "Micro-Manager metadata")


def _micromanager_summary(tif: tifffile.TiffFile) -> dict[str, Any]:
    try:
        found = tifffile.read_micromanager_metadata(tif.filehandle, {"Summary"})
        return dict(found.get("Summary") or {})
    # Files that were saved again have the tag without what it belongs to.
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return {}


def _from_resolution_tags(page: tifffile.TiffPage) -> _Statement:
    source = "TIFF resolution tags"
    unit = page.tags.valueof("ResolutionUnit")
    factor = {_INCH: UM_PER_INCH, _CENTIMETRE: _UM_PER_CENTIMETRE}.get(unit)
    x_per_unit, y_per_unit = _resolutions(page)
    if factor is None or x_per_unit is None or y_per_unit is None:
        return _Statement(_NONE, source, "the file has no voxel size with a unit")
    y, x = factor / y_per_unit, factor / x_per_unit
    if max(y, x) > _PRINTING_UM:
        return _Statement(_NONE, source, "the file has a printing resolution only, no voxel size")
    return _Statement((None, y, x), source)


def _resolutions(page: tifffile.TiffPage) -> tuple[float | None, float | None]:
    """Pixels per unit along x and y; None where the tag is missing or zero."""
    values: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        value = page.tags.valueof(name)
        ratio = None
        if isinstance(value, Sequence) and len(value) == 2 and value[0] and value[1]:
            ratio = value[0] / value[1]
        values.append(ratio)
    return values[0], values[1]


def _positive(value: object, factor: float | None, *, signed: bool = False) -> float | None:
    """Return a length in µm, or None where it is missing, 0 or not a number."""
    number = math.nan if value is None or factor is None else _number(value) * factor
    return number if math.isfinite(number) and (number > 0 or (signed and number < 0)) else None


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan
