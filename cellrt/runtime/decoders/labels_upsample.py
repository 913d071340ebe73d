"""Labels on a grid of another resolution, by linear interpolation of each label's mask."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.threads import in_threads

Shape = tuple[int, int, int]


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
    in_threads(shape[0], partial(_vote, labels, result), voxels=4 * result.size)
    return result


@njit(cache=True, nogil=True)
def _vote(labels: Any, result: Any, lo: int, hi: int) -> None:
    nz, ny, nx = labels.shape
    sz = nz / result.shape[0]
    sy = ny / result.shape[1]
    sx = nx / result.shape[2]
    corner = np.empty(8, np.int32)
    weight = np.empty(8, np.float64)
    for oz in range(lo, hi):
        pz = min(max((oz + 0.5) * sz - 0.5, 0.0), nz - 1.0)
        z0 = min(int(pz), max(nz - 2, 0))
        for oy in range(result.shape[1]):
            py = min(max((oy + 0.5) * sy - 0.5, 0.0), ny - 1.0)
            y0 = min(int(py), max(ny - 2, 0))
            for ox in range(result.shape[2]):
                px = min(max((ox + 0.5) * sx - 0.5, 0.0), nx - 1.0)
                x0 = min(int(px), max(nx - 2, 0))
                same = True
                for k in range(8):
                    z = min(z0 + (k >> 2), nz - 1)
                    y = min(y0 + ((k >> 1) & 1), ny - 1)
                    x = min(x0 + (k & 1), nx - 1)
                    corner[k] = labels[z, y, x]
                    weight[k] = (
                        (1.0 - abs(pz - (z0 + (k >> 2))))
                        * (1.0 - abs(py - (y0 + ((k >> 1) & 1))))
                        * (1.0 - abs(px - (x0 + (k & 1))))
                    )
                    same = same and corner[k] == corner[0]
                result[oz, oy, ox] = corner[0] if same else _heaviest(corner, weight)


@njit(cache=True, nogil=True)
def _heaviest(corner: Any, weight: Any) -> Any:
    best = corner[0]
    most = 0.0
    for i in range(8):
        total = 0.0
        for j in range(8):
            if corner[j] == corner[i]:
                total += weight[j]
        if total > most:
            best, most = corner[i], total
    return best
