"""Voxels of membranes, and foreground that is left over, go to the nearest cell, in place.

An exact Euclidean transform, axis by axis. Until a voxel's cell is found, its entry in the label
image is a negative number that packs the offset (y, x) to the nearest cell's voxel of its slice so
far, so that no memory but the labels' own is needed. Offsets reach 63 voxels at most, which bounds
the search along each axis.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.classes.class_map import BACKGROUND, ClassMap
from cellrt.threads import in_threads

LONGEST_REACH = 63.0

_BIAS = 64  # seven bits hold -64 to 63
_NONE = 1 << 30


def fill_from_nearest(
    labels: npt.NDArray[np.int32],
    classes: ClassMap,
    volumes: npt.NDArray[np.int64],
    reach: float,
) -> None:
    """Give each voxel that is not background and has no label to the nearest cell, in place.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Cells; changed in place. Cells keep their voxels, background stays background.
    classes : (z, y, x) uint8 array
        Class map.
    volumes : (n + 1,) int64 array
        Voxels of each cell. Among equally near cells the largest wins, then the lower label.
    reach : float
        Voxels farther than this Euclidean distance from every cell stay background; at most 63.
    """
    limit = int(reach)
    nz, ny, _ = labels.shape
    in_threads(nz, partial(_along_x, labels, volumes, limit), voxels=labels.size)
    in_threads(nz, partial(_along_y, labels, volumes, limit), voxels=4 * labels.size)
    farthest = int(reach * reach)
    in_threads(
        ny, partial(_along_z, labels, classes, volumes, limit, farthest), voxels=4 * labels.size
    )


@inlined
def _packed(dy: Any, dx: Any) -> Any:
    return -1 - (((dy + _BIAS) << 7) | (dx + _BIAS))


@compiled
def _offset(word: Any) -> Any:
    bits = -1 - word
    return (bits >> 7) - _BIAS, (bits & 127) - _BIAS


@compiled
def _label_at(labels: Any, z: int, y: int, x: int, word: Any) -> Any:
    """Label of the cell voxel that a packed offset leads to."""
    dy, dx = _offset(word)
    return labels[z, y + dy, x + dx]


@compiled
def _preferred(a: Any, b: Any, volumes: Any) -> Any:
    """Whether cell a wins over the equally near cell b."""
    return volumes[a] > volumes[b] or (volumes[a] == volumes[b] and a < b)


@compiled
def _along_x(labels: Any, volumes: Any, limit: int, lo: int, hi: int) -> None:
    _, ny, nx = labels.shape
    ahead = np.empty(nx, np.int64)
    for z in range(lo, hi):
        for y in range(ny):
            after = _NONE
            for x in range(nx - 1, -1, -1):
                if labels[z, y, x] > 0:
                    after = x
                ahead[x] = after
            before = -_NONE
            for x in range(nx):
                if labels[z, y, x] > 0:
                    before = x
                    continue
                back, forth = x - before, ahead[x] - x
                if min(back, forth) > limit:
                    labels[z, y, x] = 0
                elif back < forth or (
                    back == forth
                    and _preferred(labels[z, y, before], labels[z, y, ahead[x]], volumes)
                ):
                    labels[z, y, x] = _packed(0, -back)
                else:
                    labels[z, y, x] = _packed(0, forth)


@compiled
def _along_y(labels: Any, volumes: Any, limit: int, lo: int, hi: int) -> None:
    _, ny, nx = labels.shape
    plane = np.empty((ny, nx), np.int32)
    for z in range(lo, hi):
        # Loops: numba needs seconds to compile the assignment of one array to another.
        for y in range(ny):
            for x in range(nx):
                plane[y, x] = labels[z, y, x]
        for y in range(ny):
            for x in range(nx):
                word = np.int64(plane[y, x])
                if word > 0:
                    continue
                best = _NONE
                if word < 0:
                    _, dx = _offset(word)
                    best = dx * dx
                found = word
                k = 1
                while k <= limit and k * k <= best:
                    for step in (-k, k):
                        if not 0 <= y + step < ny or plane[y + step, x] == 0:
                            continue
                        other = np.int64(plane[y + step, x])
                        dx = 0
                        if other < 0:
                            _, dx = _offset(other)
                        square = step * step + dx * dx
                        if square > best:
                            continue
                        candidate = _packed(step, dx)
                        if square < best or _preferred(
                            _label_at(labels, z, y, x, candidate),
                            _label_at(labels, z, y, x, found),
                            volumes,
                        ):
                            best = square
                            found = candidate
                    k += 1
                labels[z, y, x] = found


@compiled
def _along_z(
    labels: Any, classes: Any, volumes: Any, limit: int, farthest: int, lo: int, hi: int
) -> None:
    nz, _, nx = labels.shape
    plane = np.empty((nz, nx), np.int32)
    for y in range(lo, hi):
        for z in range(nz):
            for x in range(nx):
                plane[z, x] = labels[z, y, x]
        for z in range(nz):
            for x in range(nx):
                word = plane[z, x]
                if word > 0:
                    continue
                if classes[z, y, x] == BACKGROUND:
                    labels[z, y, x] = 0
                    continue
                best = farthest + 1
                nearest = np.int32(0)
                k = 0
                while k <= limit and k * k <= best:
                    for step in (-k, k):
                        if not 0 <= z + step < nz or plane[z + step, x] == 0:
                            continue
                        other = np.int64(plane[z + step, x])
                        dy = dx = 0
                        if other < 0:
                            dy, dx = _offset(other)
                        square = step * step + dy * dy + dx * dx
                        if square > best or square > farthest:
                            continue
                        # Cells' voxels never change, so that other threads may look, too.
                        label = labels[z + step, y + dy, x + dx]
                        if square < best or _preferred(label, nearest, volumes):
                            best = square
                            nearest = label
                    k += 1
                labels[z, y, x] = nearest
