"""Weighted merging of tiles as a stream: every piece that leaves is final.

Tiles arrive in raster order. A row of tiles along x is summed in a buffer as deep and as wide as
one tile; what later rows will still add to is carried over, and everything else leaves at once::

      y ->
    z [ final | carried to the next row of tiles along y ]
    | [ carried to the next layer of tiles along z       ]

Each voxel is summed in the order of the tiles, so the stream gives the same bits as summing into
one array of the whole volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cellrt.runtime.tiling import Tile, TileGrid

Fields = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """A finished piece of the merged fields: a z-slab, cut along y, whole along x.

    ``fields`` has shape (channels, depth, height, x), valid until the next block is asked for.
    """

    z: slice
    y: slice
    fields: Fields


def predict(
    grid: TileGrid,
    read: Callable[[Tile], NDArray[np.float32]],
    infer: Callable[[NDArray[np.float32]], Fields],
) -> Iterator[tuple[Tile, Fields]]:
    """Run the network over all tiles while the caller merges and the next tile is read.

    Parameters
    ----------
    grid : TileGrid
    read : callable
        Gives the normalised image of a tile, float32 (z, y, x).
    infer : callable
        Network: (1, 1, z, y, x) -> (1, channels, z, y, x). Called from one other thread.

    Yields
    ------
    (Tile, ndarray)
        In the grid's order; fields of shape (channels, z, y, x).
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="network") as worker:
        pending: tuple[Tile, Future[Fields]] | None = None
        try:
            for tile in grid:
                image = read(tile)
                future = worker.submit(infer, image[None, None])
                if pending is not None:
                    yield pending[0], pending[1].result()[0]
                pending = (tile, future)
            if pending is not None:
                yield pending[0], pending[1].result()[0]
        finally:
            worker.shutdown(wait=True, cancel_futures=True)


def merge(grid: TileGrid, predictions: Iterator[tuple[Tile, Fields]]) -> Iterator[Block]:
    """Merge overlapping tiles into finished blocks, in order of z and then y.

    Parameters
    ----------
    grid : TileGrid
    predictions : iterator of (Tile, ndarray)
        In the grid's order, as :func:`predict` gives them; (channels, z, y, x), float32.

    Yields
    ------
    Block
        Together they cover the volume exactly once; padding beyond the volume is cut off.
    """
    z_axis, y_axis, x_axis = grid.axes
    depth, height, _ = grid.tile
    carried_z: Fields | None = None
    buffer: Fields | None = None
    for tile, fields in predictions:
        row_z, row_y, row_x = tile.index
        z_start, y_start, x_start = tile.start
        if buffer is None:
            buffer = np.zeros((len(fields), depth, height, x_axis.padded), np.float32)
            overlaps = np.subtract(z_axis.starts[:-1], z_axis.starts[1:]) + depth
            deepest = int(overlaps.max()) if len(overlaps) else 0
            carried_z = np.zeros((len(fields), deepest, y_axis.padded, x_axis.padded), np.float32)
        assert carried_z is not None
        if row_x == 0:
            fresh = _covered(y_axis.starts, row_y, height) - y_start
            # Rows that enter the buffer start from what the layer above left for them.
            buffer[:, :, fresh:] = 0
            if row_z > 0:
                reach = z_axis.starts[row_z - 1] + depth - z_start
                buffer[:, :reach, fresh:] = carried_z[:, :reach, y_start + fresh : y_start + height]
        _add_weighted(
            buffer,
            np.ascontiguousarray(fields, np.float32),
            z_axis.weights[row_z],
            y_axis.weights[row_y],
            x_axis.weights[row_x],
            x_start,
        )
        if row_x == len(x_axis.starts) - 1:
            z_end = _next_start(z_axis.starts, row_z, z_axis.padded)
            y_end = _next_start(y_axis.starts, row_y, y_axis.padded)
            done_z, done_y = z_end - z_start, y_end - y_start
            carried_z[:, : depth - done_z, y_start:y_end] = buffer[:, done_z:, :done_y]
            z_slice = slice(z_start, min(z_end, z_axis.length))
            y_slice = slice(y_start, min(y_end, y_axis.length))
            if z_slice.start < z_slice.stop and y_slice.start < y_slice.stop:
                yield Block(
                    z_slice,
                    y_slice,
                    buffer[
                        :,
                        : z_slice.stop - z_slice.start,
                        : y_slice.stop - y_slice.start,
                        : x_axis.length,
                    ],
                )
            buffer[:, :, : height - done_y] = buffer[:, :, done_y:].copy()


def _covered(starts: tuple[int, ...], index: int, tile: int) -> int:
    """First position that no earlier tile of this axis has touched."""
    return starts[index] if index == 0 else starts[index - 1] + tile


def _next_start(starts: tuple[int, ...], index: int, end: int) -> int:
    """Where the next tile begins: everything before it is final."""
    return starts[index + 1] if index + 1 < len(starts) else end


@njit(cache=True, nogil=True)
def _add_weighted(buffer, fields, wz, wy, wx, x_start):  # type: ignore[no-untyped-def]
    """Add ``fields * weight`` to the buffer at an offset along x."""
    channels, depth, height, width = fields.shape
    for c in range(channels):
        for z in range(depth):
            if wz[z] == 0:
                continue
            for y in range(height):
                weight = wz[z] * wy[y]
                if weight == 0:
                    continue
                for x in range(width):
                    buffer[c, z, y, x_start + x] += fields[c, z, y, x] * (weight * wx[x])
