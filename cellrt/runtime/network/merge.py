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
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Block
from cellrt.runtime.network.tiles import AxisTiles, Tile, TileGrid

Fields = NDArray[np.float32]
Weights = tuple[NDArray[np.float32], ...]


class Sums(Protocol):
    """Memory in which tiles are summed, of the host or of a device.

    Arrays are (channels, z, y, x), float32; nothing else is done with them than what is here.
    """

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Array with any values."""
        ...

    def carried(self, shape: tuple[int, ...]) -> Any:
        """The same for what a layer leaves for the next: the largest, and the least used."""
        ...

    def begin(self, sums: Any, carried: Any, fresh: int, reach: int, y: int) -> None:
        """Let rows from `fresh` on be what lies from `y` on in the `reach` carried planes, or 0."""
        ...

    def add(self, sums: Any, fields: Any, weights: Weights, x: int) -> None:
        """Add a tile's weighted fields to sums at an offset along x."""
        ...

    def carry(self, sums: Any, carried: Any, z: int, rows: int, y: int) -> None:
        """Keep the first `rows` of the planes from `z` on, from `y` on in what is carried."""
        ...

    def move_up(self, sums: Any, rows: int) -> None:
        """Let the first `rows` go and the others take their place."""
        ...

    def corner(self, sums: Any, shape: Shape) -> Any:
        """Sums of as many planes, rows and columns, all channels."""
        ...


class HostSums:
    """Sums in the host's memory."""

    def empty(self, shape: tuple[int, ...]) -> Fields:
        """See `Sums`."""
        return np.empty(shape, np.float32)

    carried = empty

    def begin(self, sums: Fields, carried: Fields, fresh: int, reach: int, y: int) -> None:
        """See `Sums`."""
        height = sums.shape[2]
        sums[:, reach:, fresh:] = 0
        sums[:, :reach, fresh:] = carried[:, :reach, y + fresh : y + height]

    def add(self, sums: Fields, fields: Fields, weights: Weights, x: int) -> None:
        """See `Sums`."""
        _add_weighted(sums, np.ascontiguousarray(fields, np.float32), *weights, x)

    def carry(self, sums: Fields, carried: Fields, z: int, rows: int, y: int) -> None:
        """See `Sums`."""
        carried[:, : sums.shape[1] - z, y : y + rows] = sums[:, z:, :rows]

    def move_up(self, sums: Fields, rows: int) -> None:
        """See `Sums`."""
        for planes in sums:  # one at a time: NumPy copies what overlaps
            for plane in planes:
                plane[: len(plane) - rows] = plane[rows:]

    def corner(self, sums: Fields, shape: Shape) -> Fields:
        """See `Sums`."""
        z, y, x = shape
        return sums[:, :z, :y, :x]


def predict(
    grid: TileGrid,
    read: Callable[[Tile], NDArray[np.float32]],
    networks: Sequence[Callable[..., Fields]],
    *,
    placed: bool = False,
) -> Iterator[tuple[Tile, Fields]]:
    """Run the network over all tiles while the caller merges and the next tile is read.

    Parameters
    ----------
    grid : TileGrid
    read : callable
        Gives the normalised image of a tile, float32 (z, y, x).
    networks : sequence of callable
        The network, once per device: (1, 1, z, y, x) -> (1, channels, z, y, x), with as many
        voxels as the grid's outputs have. Each is called from a thread of its own; tiles are dealt
        out in turn.
    placed : bool
        The networks are also told where the tile lies: its first voxel (z, y, x).

    Yields
    ------
    (Tile, ndarray)
        In the grid's order, as tiles of its outputs; fields of shape (channels, z, y, x).
    """
    if len(grid) == 1:  # nothing to do meanwhile
        (tile,) = grid
        image = read(tile)[None, None]
        fields = networks[0](image, tile.start) if placed else networks[0](image)
        yield grid.output(tile), fields[0]
        return
    workers = [ThreadPoolExecutor(1, thread_name_prefix="network") for _ in networks]
    pending: deque[tuple[Tile, Future[Fields]]] = deque()
    try:
        for turn, tile in enumerate(grid):
            image = read(tile)
            which = turn % len(networks)
            told = (image[None, None], tile.start) if placed else (image[None, None],)
            pending.append((tile, workers[which].submit(networks[which], *told)))
            if len(pending) > len(networks):
                first, future = pending.popleft()
                yield grid.output(first), future.result()[0]
        for first, future in pending:
            yield grid.output(first), future.result()[0]
    finally:
        for worker in workers:
            worker.shutdown(wait=True, cancel_futures=True)


def merge(
    grid: TileGrid,
    predictions: Iterable[tuple[Tile, Any]],
    memory: Sums | None = None,
    first: int = 0,
) -> Iterator[Block]:
    """Merge overlapping tiles into finished blocks, in order of z and then y.

    Parameters
    ----------
    grid : TileGrid
        Of what is merged: the outputs' where they have a stride.
    predictions : iterable of (Tile, array)
        In the grid's order, as :func:`predict` gives them, in voxels of its outputs; (channels, z,
        y, x), float32, in `memory`.
    memory : Sums, optional
        Where to sum; the host's by default.
    first : int
        Layer of tiles along z from which on blocks are wanted; tiles come from the layer on that
        reaches into it, see :func:`bands`.

    Yields
    ------
    Block
        Together they cover all layers from `first` on exactly once; padding beyond the volume is
        cut off. Fields are in `memory`.
    """
    z_axis, y_axis, x_axis = grid.axes
    if memory is None and len(grid) == 1:  # nothing to add up, and its weights are 1
        for _, fields in predictions:
            whole = HostSums().corner(fields, (z_axis.length, y_axis.length, x_axis.length))
            yield Block(slice(0, z_axis.length), slice(0, y_axis.length), whole)
        return
    memory = memory or HostSums()
    depth, height, _ = grid.tile
    sums: Any = None  # of this row of tiles
    carried: Any = None  # what this layer of tiles leaves for the next
    begun = 0  # the first layer, for which nothing is carried
    for tile, fields in predictions:
        row_z, row_y, row_x = tile.index
        z_start, y_start, x_start = tile.start
        if sums is None:
            channels, width, begun = fields.shape[0], x_axis.padded, row_z
            sums = memory.empty((channels, depth, height, width))
            carried = memory.carried((channels, _deepest_overlap(z_axis), y_axis.padded, width))
        if row_x == 0:
            fresh = _covered(y_axis.starts, row_y, height) - y_start
            # Rows that enter start from what the layer above left for them.
            reach = z_axis.starts[row_z - 1] + depth - z_start if row_z > begun else 0
            memory.begin(sums, carried, fresh, reach, y_start)
        weights = tuple(a.weights[i] for a, i in zip(grid.axes, tile.index, strict=True))
        memory.add(sums, fields, weights, x_start)
        if row_x == len(x_axis.starts) - 1:
            z_end = _next_start(z_axis.starts, row_z, z_axis.padded)
            y_end = _next_start(y_axis.starts, row_y, y_axis.padded)
            if z_end - z_start < depth:
                memory.carry(sums, carried, z_end - z_start, y_end - y_start, y_start)
            z = slice(z_start, min(z_end, z_axis.length))
            y = slice(y_start, min(y_end, y_axis.length))
            if row_z >= first and z.start < z.stop and y.start < y.stop:
                shape = (z.stop - z.start, y.stop - y.start, x_axis.length)
                yield Block(z, y, memory.corner(sums, shape))
            if y_end - y_start < height:
                memory.move_up(sums, y_end - y_start)


def bands(axis: AxisTiles, most: int) -> list[tuple[int, int, int]]:
    """Share the layers of tiles along an axis among devices, so that the longest share is short.

    Each device sums by itself, so it computes the layers that reach into its own as well.

    Parameters
    ----------
    axis : AxisTiles
    most : int
        Devices; where sharing saves nothing, fewer are used.

    Returns
    -------
    list of (int, int, int)
        The layer from which on tiles are needed, the first one of its own, and the one after the
        last.
    """
    count = len(axis.starts)
    reaching = [
        next(k for k in range(first + 1) if k == first or axis.starts[k] + axis.tile > start)
        for first, start in enumerate(axis.starts)
    ]
    for longest in range(1, count + 1):
        found: list[tuple[int, int, int]] = []
        first = 0
        while first < count and first - reaching[first] < longest:
            last = min(count, reaching[first] + longest)
            found.append((reaching[first], first, last))
            first = last
        if first == count and len(found) <= most:
            return found
    raise ValueError(f"{most} devices; expected at least 1")


def merge_values(grid: TileGrid) -> tuple[int, int]:
    """Values per channel of a row of tiles, and of what a layer leaves for the next."""
    z, y, x = grid.axes
    depth, height, _ = grid.tile
    return depth * height * x.padded, _deepest_overlap(z) * y.padded * x.padded


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
