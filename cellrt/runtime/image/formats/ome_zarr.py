"""What an OME-Zarr image says of its arrays: axes, voxel size, channels; versions 0.1 to 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellrt.runtime.image.axes import axes_from_names
from cellrt.runtime.image.stored import StatedSize
from cellrt.runtime.image.voxel_size import um_per_unit

# Axes of the versions that did not name them.
_FORMER_AXES = "tczyx"


@dataclass(frozen=True)
class Multiscale:
    """An image in several resolutions.

    Attributes
    ----------
    axes : str
        One letter per axis.
    sizes : dict of str to StatedSize
        Voxel size by the path of each level's array; the first is the full resolution.
    channel_names : tuple of str
        Empty where the image names none.
    """

    axes: str
    sizes: dict[str, StatedSize]
    channel_names: tuple[str, ...]

    @property
    def full(self) -> str:
        """Path of the array in full resolution, from the group that describes it."""
        return next(iter(self.sizes))


def multiscale_of(attributes: Mapping[str, Any]) -> Multiscale | None:
    """Read the attributes of a group; None where they describe no image, or in no way known."""
    try:
        described = attributes.get("ome") or attributes  # from version 0.5 on
        image = described["multiscales"][0]
        datasets = image["datasets"]
        axes = image.get("axes") or list(_FORMER_AXES)
        named = [axis if isinstance(axis, str) else axis["name"] for axis in axes]
        units = [None if isinstance(axis, str) else axis.get("unit") for axis in axes]
        letters = axes_from_names(named)
        common = _scale(image, len(axes))
        sizes = {
            str(level["path"]).strip("/"): _size(letters, units, _scale(level, len(axes)), common)
            for level in datasets
        }
        channels = (described.get("omero") or {}).get("channels") or []
        labels = [str(channel.get("label") or "") for channel in channels]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    if not sizes:
        return None
    return Multiscale(letters, sizes, tuple(labels) if all(labels) else ())


def _scale(described: Mapping[str, Any], count: int) -> list[float] | None:
    """Product of the scales among the transformations of a level, or of all; None without any."""
    found = [
        [float(factor) for factor in step["scale"]]
        for step in described.get("coordinateTransformations") or []
        if step.get("type") == "scale" and "scale" in step
    ]
    if not found or any(len(scale) != count for scale in found):
        return None
    product = [1.0] * count
    for scale in found:
        product = [a * b for a, b in zip(product, scale, strict=True)]
    return product


def _size(
    letters: str, units: list[str | None], scale: list[float] | None, common: list[float] | None
) -> StatedSize:
    if scale is None:
        return StatedSize(reason="the OME-Zarr metadata have no scale")
    if common is not None:
        scale = [a * b for a, b in zip(scale, common, strict=True)]
    um: dict[str, float] = {}
    for letter, unit, factor in zip(letters, units, scale, strict=True):
        in_um = um_per_unit(unit)
        if letter in "ZYX" and in_um is not None:
            um[letter] = factor * in_um
    if not um:
        return StatedSize(reason="the scale in the OME-Zarr metadata has no unit of length")
    return StatedSize((um.get("Z"), um.get("Y"), um.get("X")), "OME-Zarr scale")
