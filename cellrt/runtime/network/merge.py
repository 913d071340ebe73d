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

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.decoding.base import Block
from cellrt.runtime.network.tiles import AxisTiles, Tile, TileGrid

Fields = NDArray[np.float32]
Weights = tuple[NDArray[np.float32], ...]


class Sums(Protocol):
    """Memory in which tiles are summed, of the host or of a device."""

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Array of float32 zeros; slices of it can be read and assigned."""
        ...

    def add(self, sums: Any, fields: Any, weights: Weights, x: int) -> None:
        """Add a tile's weighted fields (channels, z, y, x) to sums at an offset along x."""
        ...


class HostSums:
    """Sums in the host's memory."""

    def zeros(self, shape: tuple[int, ...]) -> Fields:
        """See `Sums`."""
        return np.zeros(shape, np.float32)

    def add(self, sums: Fields, fields: Fields, weights: Weights, x: int) -> None:
        """See `Sums`."""
        _add_weighted(sums, np.ascontiguousarray(fields, np.float32), *weights, x)


def predict(
    grid: TileGrid,
    read: Callable[[Tile], NDArray[np.float32]],
    networks: Sequence[Callable[[NDArray[np.float32]], Fields]],
) -> Iterator[tuple[Tile, Fields]]:
    """Run the network over all tiles while the caller merges and the next tile is read.

    Parameters
    ----------
    grid : TileGrid
    read : callable
        Gives the normalised image of a tile, float32 (z, y, x).
    networks : sequence of callable
        The network, once per device: (1, 1, z, y, x) -> (1, channels, z, y, x). Each is called
        from a thread of its own; tiles are dealt out in turn.

    Yields
    ------
    (Tile, ndarray)
        In the grid's order; fields of shape (channels, z, y, x).
    """
    workers = [ThreadPoolExecutor(1, thread_name_prefix="network") for _ in networks]
    pending: deque[tuple[Tile, Future[Fields]]] = deque()
    try:
        for turn, tile in enumerate(grid):
            image = read(tile)
            which = turn % len(networks)
            pending.append((tile, workers[which].submit(networks[which], image[None, None])))
            if len(pending) > len(networks):
                first, future = pending.popleft()
                yield first, future.result()[0]
        for first, future in pending:
            yield first, future.result()[0]
    finally:
        for worker in workers:
            worker.shutdown(wait=True, cancel_futures=True)


def merge(
    grid: TileGrid, predictions: Iterable[tuple[Tile, Any]], memory: Sums | None = None
) -> Iterator[Block]:
    """Merge overlapping tiles into finished blocks, in order of z and then y.

    Parameters
    ----------
    grid : TileGrid
    predictions : iterable of (Tile, array)
        In the grid's order, as :func:`predict` gives them; (channels, z, y, x), float32, in
        `memory`.
    memory : Sums, optional
        Where to sum; the host's by default.

    Yields
    ------
    Block
        Together they cover the volume exactly once; padding beyond the volume is cut off. Fields
        are in `memory`.
    """
    memory = memory or HostSums()
    z_axis, y_axis, x_axis = grid.axes
    depth, height, _ = grid.tile
    sums: Any = None  # of this row of tiles
    below: Any = None  # what it leaves for the next row, while it moves up
    carried: Any = None  # what this layer of tiles leaves for the next
    for tile, fields in predictions:
        row_z, row_y, row_x = tile.index
        z_start, y_start, x_start = tile.start
        if sums is None:
            channels, width = fields.shape[0], x_axis.padded
            sums = memory.zeros((channels, depth, height, width))
            below = memory.zeros((channels, depth, _deepest_overlap(y_axis), width))
            carried = memory.zeros((channels, _deepest_overlap(z_axis), y_axis.padded, width))
        if row_x == 0:
            fresh = _covered(y_axis.starts, row_y, height) - y_start
            # Rows that enter start from what the layer above left for them.
            sums[:, :, fresh:] = 0
            if row_z > 0:
                reach = z_axis.starts[row_z - 1] + depth - z_start
                sums[:, :reach, fresh:] = carried[:, :reach, y_start + fresh : y_start + height]
        weights = tuple(a.weights[i] for a, i in zip(grid.axes, tile.index, strict=True))
        memory.add(sums, fields, weights, x_start)
        if row_x == len(x_axis.starts) - 1:
            z_end = _next_start(z_axis.starts, row_z, z_axis.padded)
            y_end = _next_start(y_axis.starts, row_y, y_axis.padded)
            done_z, done_y = z_end - z_start, y_end - y_start
            if done_z < depth:
                carried[:, : depth - done_z, y_start:y_end] = sums[:, done_z:, :done_y]
            z = slice(z_start, min(z_end, z_axis.length))
            y = slice(y_start, min(y_end, y_axis.length))
            if z.start < z.stop and y.start < y.stop:
                deep, high = z.stop - z.start, y.stop - y.start
                yield Block(z, y, sums[:, :deep, :high, : x_axis.length])
            left = height - done_y
            if left:
                below[:, :, :left] = sums[:, :, done_y:]
                sums[:, :, :left] = below[:, :, :left]


def _deepest_overlap(axis: AxisTiles) -> int:
    """Most positions that two neighbouring tiles share."""
    return int((np.subtract(axis.starts[:-1], axis.starts[1:]) + axis.tile).max(initial=0))


def _covered(starts: tuple[int, ...], index: int, tile: int) -> int:
    """First position that no earlier tile of this axis has touched."""
    return starts[index] if index == 0 else starts[index - 1] + tile


def _next_start(starts: tuple[int, ...], index: int, end: int) -> int:
    """Where the next tile begins: everything before it is final."""
    return starts[index + 1] if index + 1 < len(starts) else end


@compiled
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
