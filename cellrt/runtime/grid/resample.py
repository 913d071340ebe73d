"""Resampling of images to a model's grid.

Voxel centres of the two grids are aligned so that both cover the same volume: output voxel ``i``
lies at ``(i + 0.5) * scale - 0.5`` of the input. The kernel is a triangle as wide as the larger of
the two voxels: linear interpolation when the grid gets finer, an average without aliasing when it
gets coarser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import Shape
from cellrt.limits import usable_cores
from cellrt.runtime.grid.mended_image import MendedImage, as_it_is
from cellrt.runtime.image.source import Voxels


def resample(image: Voxels, shape: Shape) -> NDArray[np.float32]:
    """Resample a whole image.

    Parameters
    ----------
    image : ndarray, any real dtype, shape (z, y, x)
    shape : (int, int, int)
        Shape of the result.

    Returns
    -------
    ndarray, float32
    """
    result = np.empty(shape, np.float32)
    for z, plane in resample_planes(image, shape):
        result[z] = plane
    return result


def resample_planes(
    image: Voxels, shape: Shape, planes: Iterable[int] | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Resample plane by plane, so that no more than a few planes are in memory.

    Parameters
    ----------
    image : ndarray or VoxelSource, any real dtype, shape (z, y, x)
        Only the planes that are needed are read.
    shape : (int, int, int)
        Shape of the whole result.
    planes : iterable of int, optional
        Planes of the result to make; all by default.

    Yields
    ------
    (int, ndarray)
        Plane number and float32 plane (y, x).
    """
    for z, plane, _ in resample_mended(as_it_is(image), shape, planes):
        yield z, plane


def resample_mended(
    image: MendedImage, shape: Shape, planes: Iterable[int] | None = None
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_] | None]]:
    """Resample an image of which parts may be fill; fill takes no part in what lies beside it.

    Parameters
    ----------
    image : MendedImage
    shape, planes
        As for :func:`resample_planes`.

    Yields
    ------
    (int, ndarray, ndarray or None)
        Plane number, float32 plane (y, x), and where it is fill for the larger part (None:
        nowhere). Both are only to be read.
    """
    z_first, z_weights = axis_taps(image.shape[0], shape[0])
    y_taps = axis_taps(image.shape[1], shape[1])
    x_taps = axis_taps(image.shape[2], shape[2])

    def make(z: int) -> tuple[int, NDArray[np.float32], NDArray[np.bool_] | None]:
        plane = np.zeros(image.shape[1:], np.float32)
        missing: NDArray[np.float32] | None = None
        for tap, weight in enumerate(z_weights[z]):
            if not weight:
                continue
            source, fill = image.plane(int(z_first[z] + tap))
            if fill is not None:
                missing = np.zeros_like(plane) if missing is None else missing
                missing[fill] += weight
                source[fill] = 0
            plane += weight * source
        out = np.empty(shape[1:], np.float32)
        _resample_plane(plane, *y_taps, *x_taps, out)
        if missing is None:
            return z, out, None
        share = np.empty(shape[1:], np.float32)
        _resample_plane(missing, *y_taps, *x_taps, share)
        is_fill = share > _MOSTLY
        out /= np.maximum(1 - share, 1 - _MOSTLY)
        return z, out, is_fill

    wanted = list(range(shape[0]) if planes is None else planes)
    if len(wanted) == 1:  # of a single image: a thread would take as long as the work
        if shape not in image.resampled:
            z, plane, fill = make(wanted[0])
            if not image.shape[0] == shape[0] == 1 or plane.size > KEPT_PIXELS:
                yield z, plane, fill
                return
            image.resampled[shape] = plane, fill
        yield wanted[0], *image.resampled[shape]
        return
    cores = usable_cores().number
    # Planes that wait to be taken: more of small ones.
    ahead = min(8, max(2 * cores, AHEAD_BYTES // (4 * shape[1] * shape[2])))
    with ThreadPoolExecutor(cores, thread_name_prefix="resample") as pool:
        for begin in range(0, len(wanted), ahead):
            yield from pool.map(make, wanted[begin : begin + ahead])


def axis_taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Kernel of one axis.

    Returns
    -------
    first : ndarray, int64, shape (target,)
        First source voxel of each target voxel.
    weights : ndarray, float32, shape (target, taps)
        Weights of the voxels from ``first`` on; each row sums to one.
    """
    scale = source / target
    reach = max(1.0, scale)
    centre = (np.arange(target) + 0.5) * scale - 0.5
    taps = min(source, int(np.ceil(2 * reach)) + 1)
    first = np.clip(np.floor(centre - reach).astype(np.int64) + 1, 0, source - taps)
    position = first[:, None] + np.arange(taps)
    weights = np.clip(1 - np.abs(position - centre[:, None]) / reach, 0, None)
    # Beyond the first and last voxel the border voxel is repeated: its weight takes the rest.
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


AHEAD_BYTES = 20_000_000
# The largest plane that is kept for the next one who asks.
KEPT_PIXELS = 1 << 22
# A voxel of which more than this share is fill is fill.
_MOSTLY = np.float32(0.5)


@compiled
def _resample_plane(plane, y_first, y_weights, x_first, x_weights, out):  # type: ignore[no-untyped-def]
    """Resample one plane: along y into a row buffer, then along x."""
    row = np.empty(plane.shape[1], np.float32)
    for y in range(out.shape[0]):
        for x in range(plane.shape[1]):
            row[x] = 0
        for tap in range(y_weights.shape[1]):
            weight = y_weights[y, tap]
            if weight != 0:
                for x in range(plane.shape[1]):
                    row[x] += weight * plane[y_first[y] + tap, x]
        for x in range(out.shape[1]):
            value = np.float32(0)
            for tap in range(x_weights.shape[1]):
                value += x_weights[x, tap] * row[x_first[x] + tap]
            out[y, x] = value
