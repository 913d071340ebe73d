"""Cells of a patch, for networks that describe whole cells at half of the image's resolution.

A voxel of such a network's output stands for a block of 2 x 2 x 2 voxels of the image, and its
middle is where the eight meet.

Cells that reach a face of the labels that are seen go on beyond it: their shape is not known, nor
is how deep voxels lie in them, so that their voxels do not count. A cell that the stack itself cuts
ends there, as it does in the label image that scores are computed with, and in a single slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.models.ground_truth import UNKNOWN, without_margin
from cellrt.runtime.decoding.classes.class_map import FOREGROUND
from cellrt.runtime.decoding.labels.distance import squared_distance
from cellrt.runtime.decoding.labels.regions import bounding_boxes

STRIDE = 2
"""Voxels of the image, along each axis, per voxel of the output."""
UNKNOWN_DEPTH = -1.0
"""Depth of voxels that do not count."""


@dataclass(frozen=True, eq=False)
class WholeCells:
    """Cells of a patch that are seen whole.

    Attributes
    ----------
    labels : (z, y, x) int32 array
        As far as they are seen: whole cells that reach into the patch are 1 to `count`, all else
        is 0.
    count : int
    depth : (z/2, y/2, x/2) float32 array
        Of the patch: the mean over a block's voxels of the distance to the border relative to its
        maximum in the cell; 0 in the background, `UNKNOWN_DEPTH` where a voxel does not count.
    owner : (z/2, y/2, x/2) int32 array
        Cell of each block's deepest voxel; 0 where none is in a cell, or does not count.
    """

    labels: npt.NDArray[np.int32]
    count: int
    depth: npt.NDArray[np.float32]
    owner: npt.NDArray[np.int32]


def find_whole_cells(labels: npt.NDArray[Any], margin: int) -> WholeCells:
    """Find the cells that are whole, and how deep voxels lie in them.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Cells above 0, background 0, unknown -1.
    margin : int
        Voxels by which they are seen beyond the patch, whose edges are even.
    """
    known = np.maximum(labels, 0).astype(np.int32)
    whole = np.zeros(int(known.max()) + 1, np.bool_)
    whole[without_margin(known, margin)] = True
    for axis in range(3):
        for end in (0, -1):
            whole[known.take(end, axis)] = False
    whole[0] = False
    ids = np.flatnonzero(whole)
    numbers = np.zeros(len(whole), np.int32)
    numbers[ids] = np.arange(1, len(ids) + 1)
    cells = numbers[known]

    depth = np.zeros(labels.shape, np.float32)
    for number, (z0, z1, y0, y1, x0, x1) in enumerate(bounding_boxes(cells, len(ids))[1:], start=1):
        # Whole cells leave room for one voxel around them.
        box = slice(z0 - 1, z1 + 1), slice(y0 - 1, y1 + 1), slice(x0 - 1, x1 + 1)
        mask = cells[box] == number
        distance = np.sqrt(squared_distance(mask * np.uint8(FOREGROUND)), dtype=np.float32)
        depth[box][mask] = (distance / distance.max())[mask]
    depth[(labels == UNKNOWN) | ((known > 0) & (cells == 0))] = UNKNOWN_DEPTH

    depths, owners = (_blocks(without_margin(each, margin)) for each in (depth, cells))
    mean = depths.mean(axis=-1, dtype=np.float32)
    mean[depths.min(axis=-1) < 0] = UNKNOWN_DEPTH
    deepest = depths.argmax(axis=-1)[..., None]
    owner = np.take_along_axis(owners, deepest, axis=-1)[..., 0]
    owner[mean < 0] = 0
    return WholeCells(cells, len(ids), mean, owner)


def _blocks(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put the eight voxels of each block along the last axis."""
    z, y, x = (size // STRIDE for size in volume.shape)
    apart = volume.reshape(z, STRIDE, y, STRIDE, x, STRIDE).transpose(0, 2, 4, 1, 3, 5)
    return np.asarray(apart.reshape(z, y, x, STRIDE**3))
