"""A network's map against its shapes: where cells end, and how well both agree."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import LabelArray, Shape
from cellrt.runtime.decoding.classes.class_map import FOREGROUND
from cellrt.runtime.decoding.labels.distance import squared_distance
from cellrt.runtime.decoding.labels.flood import flood
from cellrt.runtime.decoding.star.candidates import LEVELS
from cellrt.threads import in_threads


def interpolated(
    heights: NDArray[np.uint8], stride: int, shape: Shape, least: float = 0.0
) -> NDArray[np.uint8]:
    """Bring the map from the network's grid to the model's.

    Parameters
    ----------
    heights : (z, y, x) uint8 array
        The map on the network's grid.
    stride : int
        Of that grid.
    shape : (int, int, int)
        Of the model's grid.
    least : float
        What is lower becomes 0.
    """
    found = np.empty(shape, np.uint8)
    places = [_places(n, stride, m) for n, m in zip(shape, heights.shape, strict=True)]
    in_threads(
        shape[0], partial(_interpolate, found, heights, *places, least), voxels=4 * found.size
    )
    return found


def _places(count: int, stride: int, length: int) -> NDArray[np.float32]:
    """For each voxel where it lies between those of the network's grid, of which 2 are there."""
    at = (np.arange(count) + 0.5) / stride - 0.5
    return np.clip(at, 0, length - 1).astype(np.float32)


@compiled
def _interpolate(
    found: Any, heights: Any, tz: Any, ty: Any, tx: Any, least: float, lo: int, hi: int
) -> None:
    nz, ny, nx = heights.shape
    one = np.float32(1.0)
    row = np.empty(nx + 1, np.float32)
    for z in range(lo, hi):
        z0 = min(np.int64(tz[z]), nz - 1)
        z1, fz = min(z0 + 1, nz - 1), tz[z] - np.float32(z0)
        for y in range(found.shape[1]):
            y0 = min(np.int64(ty[y]), ny - 1)
            y1, fy = min(y0 + 1, ny - 1), ty[y] - np.float32(y0)
            for x in range(nx):
                before = (one - fy) * heights[z0, y0, x] + fy * heights[z0, y1, x]
                after = (one - fy) * heights[z1, y0, x] + fy * heights[z1, y1, x]
                row[x] = (one - fz) * before + fz * after
            row[nx] = row[nx - 1]
            for x in range(found.shape[2]):
                x0 = np.int64(tx[x])
                fx = tx[x] - np.float32(x0)
                value = (one - fx) * row[x0] + fx * row[x0 + 1]
                level = np.uint8(value + np.float32(0.5))
                found[z, y, x] = level if level >= least else np.uint8(0)


def fit_to_map(
    cores: LabelArray,
    heights: NDArray[np.uint8],
    levels: NDArray[np.float32],
) -> None:
    """Let cells grow from their cores, in place, to where the map says that they end.

    Two cells meet in the map's valley between them, as waters do that rise from both, and each ends
    where the map falls below a level of its own.

    Parameters
    ----------
    cores : (z, y, x) int32 array
        What certainly is of a cell, on the model's grid; the result.
    heights : (z, y, x) uint8 array
        The map there, 0 to `LEVELS`, and 0 beyond all cells' reach; used up.
    levels : (n + 1,) float32 array
        Of cells 0 to n, 0 to 1.
    """
    flood(cores, heights, levels * np.float32(LEVELS))


def matches(
    labels: LabelArray,
    heights: NDArray[np.uint8],
    stride: int,
    levels: NDArray[np.float32],
    threshold: float,
) -> NDArray[np.int64]:
    """Count where map and cells agree, in voxels of the network's grid.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        On the model's grid.
    heights : (z, y, x) uint8 array
        The map on the network's grid, 0 to `LEVELS`.
    stride : int
        Of that grid.
    levels : (n + 1,) float32 array
        Of cells 0 to n, 0 to 1.
    threshold : float
        Where the map is above, something must be.

    Returns
    -------
    (n + 1, 2) int64 array
        Voxels of each cell, and those of them where the map says so; in the first row those of no
        cell, and those of them that are above `threshold`.
    """
    least = levels * np.float32(LEVELS)
    least[0] = threshold * LEVELS

    def part(lo: int, hi: int) -> NDArray[np.int64]:
        found = np.zeros((len(levels), 2), np.int64)
        _match(labels, heights, stride, least, found, lo, hi)
        return found

    return np.asarray(sum(in_threads(len(heights), part, voxels=heights.size)))


@compiled
def _match(
    labels: Any, heights: Any, stride: int, least: Any, found: Any, lo: int, hi: int
) -> None:
    for z in range(lo, hi):
        for y in range(heights.shape[1]):
            for x in range(heights.shape[2]):
                label = labels[z * stride, y * stride, x * stride]
                found[label, 0] += 1
                if heights[z, y, x] > least[label]:
                    found[label, 1] += 1


def expected_map(labels: LabelArray, stride: int) -> NDArray[np.float32]:
    """What a perfect network's map is for some cells: distance to the border, by the largest.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        On the model's grid; its faces are no borders.
    stride : int
        Of the network's grid.

    Returns
    -------
    (z, y, x) float32 array
        On the network's grid, 0 to 1.
    """
    inner = labels > 0
    for axis in range(3):
        a, b = (np.moveaxis(each, axis, 0) for each in (labels, inner))
        differs = a[1:] != a[:-1]
        b[1:] &= ~differs
        b[:-1] &= ~differs
    depth = (labels > 0).astype(np.float32)
    if not inner.all():
        depth += np.sqrt(squared_distance(inner * np.uint8(FOREGROUND)))
    deepest = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    depth /= np.maximum(deepest, 1)[labels]
    whole = np.pad(depth, [(0, -n % stride) for n in labels.shape], mode="edge")
    z, y, x = (n // stride for n in whole.shape)
    blocks = whole.reshape(z, stride, y, stride, x, stride)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32)
