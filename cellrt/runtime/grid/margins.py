"""Margins of fill around an image: what padding and stitching add is neither seen nor computed.

Fill takes no part in the measure of brightness, but to a network it is background up to a sharp
edge, where else it sees the image end. Of cells that the edge cuts through, and that have no wall
there, this lost some: in 11 of a plant `membranes` kept 0.77 of the AP50 without margins.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.grid.defects import computable
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.threads import in_threads


def without_margins(image: MendedImage) -> MendedImage:
    """The smallest box that all of an image lies in, where fill surrounds it.

    Parameters
    ----------
    image : MendedImage
        A whole image.

    Returns
    -------
    MendedImage
        The image as it was where it has no fill, or none around it; at least two slices of a stack.
        Single pixels in the fill, as hot ones are, are no part of the image.
    """
    defects = image.defects
    depth, height, width = image.shape
    if defects.fill is None or min(height, width) < 2:
        return image
    # Margins that are thinner than the pixels of the overview are apart are left.
    if all(_ends(defects.overview != defects.fill, axis) for axis in range(3)):
        return image
    planes = np.zeros(depth, np.bool_)

    def part(first: int, last: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        rows, columns = np.zeros(height - 1, np.bool_), np.zeros(width - 1, np.bool_)
        for z in range(first, last):
            there = computable(np.asarray(image.source[z]), defects.base) != defects.fill
            pairs = there[1:] & there[:-1]
            squares = pairs[:, 1:] & pairs[:, :-1]
            rows |= squares.any(axis=1)
            columns |= squares.any(axis=0)
            planes[z] = squares.any()
        return rows, columns

    parts = in_threads(depth, part, voxels=math.prod(image.shape))
    rows, columns = (np.any(each, axis=0) for each in zip(*parts, strict=True))
    if not planes.any():
        return image
    z, y, x = _span(planes), _span(rows, 1), _span(columns, 1)
    if depth > 1 and z.stop - z.start < 2:
        z = slice(0, depth)
    return image.crop((z, y, x))


def _ends(image: NDArray[np.bool_], axis: int) -> bool:
    """Whether there is something at both ends of an axis."""
    return bool(image.take(0, axis).any() and image.take(-1, axis).any())


def _span(there: NDArray[np.bool_], more: int = 0) -> slice:
    """From the first to the last, and so many more."""
    first, last = np.flatnonzero(there)[[0, -1]]
    return slice(int(first), int(last) + 1 + more)
