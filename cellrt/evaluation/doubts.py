"""Whether what is scored as labels can be labels: a grey image, or a mask, would pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

# Share of voxels without a neighbour of their own value. Of 567 label images, of nuclei and cells,
# touching or not, none had above 0.001; of 570 images none had below 0.08.
_MOST_ALONE = 0.02
# Fewer values are classes or a mask, however noisy; labels of single points are alone, but each
# has one place.
_FEWEST_VALUES = 16
_MOST_PLACES = 1.5
# A mask has one value in many places. One cell that branches has several parts in a slice, too.
# Parts without an inside are noise.
_MOST_PARTS = 8
# So much is looked at, in slices that are spread over the image.
_VOXELS = 1 << 22
_LONGEST_SIDE = 2048


def doubt_labels(image: ArrayLike, name: str) -> str | None:
    """Say what speaks against an image being one of labels; None where nothing does.

    Neighbouring voxels of a cell have one label, however many cells there are and whether there is
    background or not; in an image noise sets them apart.

    Parameters
    ----------
    image : array_like
        As for `cellrt.evaluation.evaluate`; it is read slice by slice.
    name : str
        What it is, for the text.
    """
    cells, values, parts = 0, 0, 0
    alone: list[NDArray[Any]] = []
    only: set[Any] = set()
    for plane in _planes(image):
        same = np.zeros(plane.shape, bool)
        for axis in (0, 1):
            first, second = (
                tuple(part if k == axis else slice(None) for k in (0, 1))
                for part in (slice(None, -1), slice(1, None))
            )
            equal = plane[first] == plane[second]
            same[first] |= equal
            same[second] |= equal
        cell = plane != 0
        cells += int(cell.sum())
        alone.append(plane[cell & ~same])
        found = np.unique(plane[cell])
        values = max(values, found.size)
        only.update(found[:2].tolist())
        if len(only) == 1:
            parts = max(parts, ndimage.label(ndimage.binary_erosion(cell, np.ones((3, 3))))[1])
    if len(only) == 1 and parts > _MOST_PARTS:
        return (
            f"the {name} looks like a mask and not like labels: all that is not 0 has one value, "
            f"in {parts} parts of one slice; give a label image, in which every voxel of a cell "
            "has the cell's number"
        )
    places = sum(part.size for part in alone)
    if places <= _MOST_ALONE * cells or values < _FEWEST_VALUES:
        return None
    if places <= _MOST_PLACES * np.unique(np.concatenate(alone)).size:
        return None
    return (
        f"the {name} looks like an image and not like labels: {places / cells:.0%} of its voxels "
        "above 0 have no neighbour of the same value; give a label image, in which every voxel of "
        "a cell has the cell's number"
    )


def _planes(image: Any) -> list[NDArray[Any]]:
    """Slices (y, x), or parts of them, spread over the image; none of what has only one axis."""
    if not hasattr(image, "shape"):
        image = np.asarray(image)
    if len(image.shape) < 2 or 0 in image.shape:
        return []
    side = slice(0, _LONGEST_SIDE)
    if len(image.shape) == 2:
        return [np.asarray(image[side, side])]
    height, width = (min(length, _LONGEST_SIDE) for length in image.shape[-2:])
    inner = int(np.prod(image.shape[1:-2])) * height * width
    count = max(1, min(image.shape[0], _VOXELS // inner))
    planes = []
    for at in np.linspace(0, image.shape[0] - 1, count).round().astype(int):
        part = np.asarray(image[int(at)])[..., side, side]
        planes += list(part.reshape(-1, height, width))
    return planes
