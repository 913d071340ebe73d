"""What the OME-XML of a TIFF file says about the image that is read, and about no other."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from cellrt.errors import InputError

Element = ElementTree.Element


def file_with_description(path: Path, tif: tifffile.TiffFile) -> Path | None:
    """Return the file that describes the OME set this one is part of; None where it is itself.

    Raises
    ------
    InputError
        The description is in a file that does not lie beside this one.
    """
    root = _root(tif)
    pointers = [] if root is None else _children(root, "BinaryOnly")
    if not pointers:
        return None
    name = pointers[0].get("MetadataFile") or ""
    described = path.with_name(Path(name.replace("\\", "/")).name) if name else path
    if described == path or not described.exists():
        raise InputError(
            f"{path.name} is one file of an OME set, and {name or 'the file'} that describes the "
            "set does not lie beside it; put all files of the set into one folder"
        )
    return described


def pixels_of(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Element | None:
    """Return the Pixels element that describes a series; None where the file has none for it."""
    root = _root(tif) if series.kind == "ome" else None
    if root is None:
        return None
    described = [
        (image.get("Name") or "", pixels)
        for image in _children(root, "Image")
        for pixels in _children(image, "Pixels")
    ]
    fitting = [(name, pixels) for name, pixels in described if _voxels(pixels) == series.size]
    numbers = [i for i, other in enumerate(tif.series) if other is series]
    if len(fitting) > 1 and len(described) == len(tif.series) and numbers:
        return described[numbers[0]][1]
    named = [pixels for name, pixels in fitting if name == series.name]
    if named:
        return named[0]
    best = fitting or described
    return best[0][1] if best else None


def refuse_missing_files(path: Path, pixels: Element) -> None:
    """Raise InputError where files that hold pages of an image do not lie beside this one."""
    names = [
        identifier.get("FileName") or ""
        for data in _children(pixels, "TiffData")
        for identifier in _children(data, "UUID")
    ]
    missing = [name for name in dict.fromkeys(names) if name and not (path.parent / name).exists()]
    # A file that was renamed is still the one it says it is.
    if missing and len(set(names)) > 1:
        listed = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise InputError(
            f"{path.name} belongs to an OME set of which files are missing ({listed}); "
            "put all files of the set into one folder"
        )


def channel_names(pixels: Element) -> list[str]:
    """Names of the channels, with numbers for those that have none."""
    channels = _children(pixels, "Channel")
    return [c.get("Name") or f"channel {i + 1}" for i, c in enumerate(channels)]


def _root(tif: tifffile.TiffFile) -> Element | None:
    try:
        return ElementTree.fromstring(tif.ome_metadata) if tif.ome_metadata else None
    except ElementTree.ParseError:
        return None


def _children(element: Element, tag: str) -> list[Element]:
    """Return the children of this name in whatever version of the schema."""
    return [child for child in element if child.tag.rsplit("}", 1)[-1] == tag]


def _voxels(pixels: Element) -> int:
    """Number of samples an image has according to its sizes; 0 where they make no sense."""
    try:
        return math.prod(int(pixels.get(f"Size{axis}", "1")) for axis in "XYZCT")
    except ValueError:
        return 0
