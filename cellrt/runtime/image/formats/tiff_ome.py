"""What the OME-XML of a TIFF file says about the image that is read, and about no other."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import tifffile

Element = ElementTree.Element


def pixels_of(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Element | None:
    """Return the Pixels element that describes a series; None where the file has none for it."""
    if series.kind != "ome" or not tif.ome_metadata:
        return None
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
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


def channel_names(pixels: Element) -> list[str]:
    """Names of the channels, with numbers for those that have none."""
    channels = _children(pixels, "Channel")
    return [c.get("Name") or f"channel {i + 1}" for i, c in enumerate(channels)]


def _children(element: Element, tag: str) -> list[Element]:
    """Return the children of this name in whatever version of the schema."""
    return [child for child in element if child.tag.rsplit("}", 1)[-1] == tag]


def _voxels(pixels: Element) -> int:
    """Number of samples an image has according to its sizes; 0 where they make no sense."""
    try:
        return math.prod(int(pixels.get(f"Size{axis}", "1")) for axis in "XYZCT")
    except ValueError:
        return 0
