"""Labels on a grid of another resolution, by linear interpolation of each label's mask."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.geometry import Shape
from cellrt.threads import in_threads


def upsample_masks(labels: npt.NDArray[np.int32], shape: Shape) -> npt.NDArray[np.int32]:
    """Labels on a grid that covers the same volume with other voxels.

    Each voxel takes the label, background included, with the largest sum of linear weights over
    the eight voxels around its position: what interpolating the mask of every label and taking
    the largest would give. Borders come out smooth, where copying the nearest leaves steps.

    Parameters
    ----------
    labels : (z, y, x) int32 array
    shape : (int, int, int)
        Shape of the result; voxel ``i`` lies at ``(i + 0.5) * scale - 0.5`` of `labels`.

    Returns
    -------
    (z, y, x) int32 array of the given shape
    """
    result = np.empty(shape, np.int32)
    work = partial(_vote, labels, result, *_all_taps(labels.shape, shape))
    in_threads(shape[0] * shape[1], work, voxels=4 * result.size)
    return result


def upsample_cells(
    labels: npt.NDArray[np.int32],
    foreground: npt.NDArray[np.int16],
    threshold: float,
    shape: Shape,
) -> npt.NDArray[np.int32]:
    """Labels on another grid, cells ending where the interpolated foreground falls too low.

    Between cells as `upsample_masks`. Where labels and foreground disagree, as in holes that were
    filled and in specks that were taken away, labels are right.

    Parameters
    ----------
    labels : (z, y, x) int32 array
    foreground : (z, y, x) int16 array
    threshold : float
        Of the foreground; at it and above, there is a cell.
    shape : (int, int, int)
        As for `upsample_masks`.

    Returns
    -------
    (z, y, x) int32 array of the given shape
    """
    result = np.empty(shape, np.int32)
    taps = _all_taps(labels.shape, shape)
    work = partial(_vote_within, labels, foreground, threshold, result, *taps)
    in_threads(shape[0] * shape[1], work, voxels=4 * result.size)
    return result


def _all_taps(shape: Shape, target: Shape) -> list[npt.NDArray[Any]]:
    """Of z, y and x in turn, what `_taps` finds."""
    return [part for n, m in zip(shape, target, strict=True) for part in _taps(n, m)]


def _taps(length: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Index of the voxels before and after each position, and their weights, both (target, 2)."""
    position = np.clip((np.arange(target) + 0.5) * (length / target) - 0.5, 0, length - 1)
    first = np.minimum(position.astype(np.int64), max(length - 2, 0))
    index = np.minimum(np.stack([first, first + 1], axis=1), length - 1)
    after = position - first
    return index, np.stack([1 - after, after], axis=1)


@compiled
def _vote(
    labels: Any, result: Any, zi: Any, zw: Any, yi: Any, yw: Any, xi: Any, xw: Any, lo: int, hi: int
) -> None:
    corner = np.empty(8, np.int32)
    for row in range(lo, hi):
        z, y = row // result.shape[1], row % result.shape[1]
        a, b = labels[zi[z, 0], yi[y, 0]], labels[zi[z, 0], yi[y, 1]]
        c, d = labels[zi[z, 1], yi[y, 0]], labels[zi[z, 1], yi[y, 1]]
        for x in range(result.shape[2]):
            if _corners(a, b, c, d, xi[x, 0], xi[x, 1], corner):
                result[z, y, x] = corner[0]
            else:
                result[z, y, x] = _heaviest(corner, zw[z], yw[y], xw[x], False)


@inlined
def _corners(a: Any, b: Any, c: Any, d: Any, left: Any, right: Any, corner: Any) -> Any:
    """Labels of the eight voxels around a position; whether they are alike.

    Most positions lie inside of a cell: weights are needed at borders only.
    """
    first = a[left]
    corner[0], corner[1], corner[2], corner[3] = first, a[right], b[left], b[right]
    corner[4], corner[5], corner[6], corner[7] = c[left], c[right], d[left], d[right]
    same = True
    for k in range(1, 8):
        same = same and corner[k] == first
    return same


@compiled
def _vote_within(
    labels: Any,
    foreground: Any,
    threshold: Any,
    result: Any,
    zi: Any,
    zw: Any,
    yi: Any,
    yw: Any,
    xi: Any,
    xw: Any,
    lo: int,
    hi: int,
) -> None:
    corner = np.empty(8, np.int32)
    for row in range(lo, hi):
        z, y = row // result.shape[1], row % result.shape[1]
        a, b = labels[zi[z, 0], yi[y, 0]], labels[zi[z, 0], yi[y, 1]]
        c, d = labels[zi[z, 1], yi[y, 0]], labels[zi[z, 1], yi[y, 1]]
        for x in range(result.shape[2]):
            if _corners(a, b, c, d, xi[x, 0], xi[x, 1], corner):
                result[z, y, x] = corner[0]
                continue
            above = 0.0
            for k in range(8):
                here = foreground[zi[z, k >> 2], yi[y, (k >> 1) & 1], xi[x, k & 1]] - threshold
                here = max(here, 0.0) if corner[k] else min(here, -1.0)
                above += here * zw[z, k >> 2] * yw[y, (k >> 1) & 1] * xw[x, k & 1]
            result[z, y, x] = _heaviest(corner, zw[z], yw[y], xw[x], True) if above >= 0 else 0


@compiled
def _heaviest(corner: Any, zw: Any, yw: Any, xw: Any, only_cells: bool) -> Any:
    """Label with the largest sum of weights; of equal ones the first."""
    best = 0
    most = -1.0
    for i in range(8):
        if only_cells and corner[i] == 0:
            continue
        total = 0.0
        for j in range(8):
            if corner[j] == corner[i]:
                total += zw[j >> 2] * yw[(j >> 1) & 1] * xw[j & 1]
        if total > most:
            best, most = corner[i], total
        if most > 0.5:  # more than all others together
            break
    return best
