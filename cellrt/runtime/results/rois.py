"""Outlines of cells as a set of ImageJ's regions of interest, which Fiji's ROI Manager opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from cellrt.errors import UsageError
from cellrt.runtime.results.masks import Mask

if TYPE_CHECKING:
    from roifile import ImagejRoi

# Steps of a path of several outlines, as ImageJ writes them.
_MOVE, _LINE, _CLOSE = 0, 1, 4


def require_roifile() -> None:
    """Refuse to write ROI sets where the package for that is missing, before anything is computed.

    Raises
    ------
    UsageError
    """
    try:
        import roifile  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "ROI sets are written by roifile, which is not installed; install it with: "
            "pip install 'cellrt[rois]'"
        ) from error


def write_rois(path: Path, slices: Sequence[dict[int, Mask]]) -> None:
    """Write the outline of every cell as a ZIP file of ImageJ ROIs.

    Each is called by the cell's id, in a stack by id and slice, as ``12-z3``, on which it lies.
    Outlines run along the edges of pixels, so what they enclose are the mask's pixels and no
    others; where a mask has holes or several parts it is a composite ROI.

    Parameters
    ----------
    path : Path
        Ends in ``.zip``.
    slices : sequence of dict of int to Mask
        Of each slice, by id.
    """
    from roifile import roiwrite

    roiwrite(path, _rois(slices), mode="w")


def _rois(slices: Sequence[dict[int, Mask]]) -> Iterator[ImagejRoi]:
    for z, masks in enumerate(slices):
        for label, mask in sorted(masks.items()):
            roi = _roi(mask)
            roi.name = str(label)
            if len(slices) > 1:
                roi.name += f"-z{z + 1}"
                roi.position = z + 1
            yield roi


def _roi(mask: Mask) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    corner = np.array([side.start for side in reversed(mask.box)])
    lines = [line + corner for line in outlines(mask.inside)]
    every = np.concatenate(lines)
    roi: ImagejRoi = ImagejRoi.frompoints(every)
    if len(lines) == 1:
        roi.roitype = ROI_TYPE.TRACED
    else:
        path: list[float] = []
        for line in lines:
            path += [_MOVE, *line[0]]
            for point in line[1:]:
                path += [_LINE, *point]
            path.append(_CLOSE)
        roi.roitype = ROI_TYPE.RECT
        roi.integer_coordinates = None
        roi.n_coordinates = 0
        roi.multi_coordinates = np.array(path, np.float32)
        roi.shape_roi_size = len(path)
    # Where the pixels end, and the points too, as these lie on the corners of pixels.
    roi.right, roi.bottom = (int(end) for end in every.max(axis=0))
    return roi


def outlines(inside: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Polygons along the edges of pixels around a mask, one for each part and each hole.

    Parameters
    ----------
    inside : (y, x) bool array
        With at least one pixel. Pixels that touch by a corner are of one part.

    Returns
    -------
    list of (n, 2) int64 array
        Corners (x, y), where the pixel (0, 0) lies between the corners (0, 0) and (1, 1); the last
        is joined to the first.

    Examples
    --------
    >>> [line.tolist() for line in outlines(np.array([[1, 1]], bool))]
    [[[0, 0], [2, 0], [2, 1], [0, 1]]]
    """
    grey = np.pad(inside, 1).astype(np.float32)
    return [_corners(line) for line in find_contours(grey, 0.5, fully_connected="high")]


def _corners(contour: NDArray[Any]) -> NDArray[np.int64]:
    """From the middles of pixels' edges, of which two that follow share a corner, to corners."""
    first, second = contour[:-1], contour[1:]
    # An edge's middle has one coordinate of its two corners, between pixels; the other lies where
    # the next edge has its own, or between the two edges that are in line.
    between = first % 1 != 0, second % 1 != 0
    corners = np.where(between[0], first, np.where(between[1], second, (first + second) / 2))
    turns = np.roll(corners, -1, axis=0) - corners
    turns = (turns != np.roll(turns, 1, axis=0)).any(axis=1)
    points = (corners[turns] - 0.5).astype(np.int64)[:, ::-1]
    start = np.lexsort(points.T)[0]  # the same wherever the contour was begun
    return np.ascontiguousarray(np.roll(points, -start, axis=0))
