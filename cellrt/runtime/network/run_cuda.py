"""The network stage on a GPU: copies, inference and merging overlap, only finished pieces return.

Three streams, each in order by itself, wait for one another through events::

    read     fill tiles 2       fill tiles 3       fill tiles 4
    upload          tiles 2            tiles 3            tiles 4
    compute  tiles 1: network, add     tiles 2: network, add     tiles 3: ...
    download                    row 0 in pieces
    store                         row 0 in pieces

One thread of the host queues the network and the merging and does nothing else; another fills one
of two pinned buffers with the next tiles and queues their copy, and a third stores the pieces of a
row that is finished. Engines may keep the first waiting: neither of the others waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.base import Block
from cellrt.runtime.machine.gpu import Device, DeviceMemoryError
from cellrt.runtime.network.engines.gpu_session import BATCH_VOXELS, DeviceSession
from cellrt.runtime.network.hand_over import HandOver
from cellrt.runtime.network.merge import bands, merge, merge_values
from cellrt.runtime.network.merge_cuda import DeviceSums
from cellrt.runtime.network.tiles import Tile, TileGrid

Read = Callable[[Tile, NDArray[np.float32]], object]

# Activations that are alive at once in the bundled networks, per voxel of a tile, in fp32: what the
# first guess of the batch rests on. An engine that needs more says so, and the batch is halved.
WORK_BYTES_PER_VOXEL = 360
# Share of the free memory to fill; the screen and other programs need some.
MEMORY_SHARE = 0.8
# Values of a piece that goes to the host: enough for the bus, few enough to store one meanwhile.
PIECE_VALUES = 1 << 22


def device_fields(
    read: Read,
    grid: TileGrid,
    sessions: Sequence[DeviceSession],
    out: HandOver,
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """Run the network over all tiles on GPUs and merge them there.

    Parameters
    ----------
    read : callable
        Writes the normalised image of a tile to an array, float32 (z, y, x).
    grid : TileGrid
    sessions : sequence of DeviceSession
        One per GPU; each computes some layers of tiles. Only a decoder that wants no tiles may have
        several.
    out : HandOver
        Given what leaves the devices. Where too large a batch runs out of memory, it starts again.
    note : callable
        Told what is done for want of memory: a smaller batch, and sums in the host's memory.

    Returns
    -------
    float
        Seconds that the network itself took on the device that was busy longest.

    Raises
    ------
    DeviceMemoryError
        There is too little device memory for one tile.
    """
    shares = list(zip(sessions, bands(grid.axes[0], len(sessions)), strict=False))
    plans = [_first_batch(s, grid, out.channels(s.output_channels)) for s, _ in shares]
    batch = min(batch for batch, _ in plans)
    on_device = all(on_device for _, on_device in plans)

    def run(share: tuple[DeviceSession, tuple[int, int, int]]) -> float:
        session, band = share
        session.gpu.activate()
        return _Run(read, grid, session, band, batch, out, on_device).go()

    while True:
        try:
            if len(shares) == 1:
                return run(shares[0])
            with ThreadPoolExecutor(len(shares), "gpu") as pool:
                running = [pool.submit(run, share) for share in shares]
            return max(each.result() for each in running)
        except DeviceMemoryError as error:
            if batch > 1:
                batch //= 2
                words = f"{batch} at a time"
            elif on_device:
                on_device = False
                words = "what a layer of tiles leaves for the next in the host's memory"
            else:
                raise
            out.restart()
            note(f"{error.message}; going on with {words}")


def _first_batch(session: DeviceSession, grid: TileGrid, merged: int) -> tuple[int, bool]:
    """Tiles at once that should fit into the free memory, and whether what is carried does, too."""
    voxels = math.prod(grid.tile)
    # Image twice, fields once, and what the network needs in between.
    tile_bytes = voxels * (4 * (2 + session.output_channels) + WORK_BYTES_PER_VOXEL)
    row, carried = (4 * merged * values for values in merge_values(grid))
    # The row that is summed, and two that are on their way to the host.
    room = MEMORY_SHARE * session.gpu.free_bytes - 3 * row
    on_device = carried + tile_bytes <= room
    fit = (room - (carried if on_device else 0)) / tile_bytes
    most = min(session.largest_batch, len(grid), BATCH_VOXELS // voxels)
    return int(max(1, min(most, fit))), on_device


class _Upload:
    """One of the two places where tiles wait for the network."""

    def __init__(self, gpu: Device, shape: tuple[int, ...], stream: Any) -> None:
        self.host = gpu.pinned(shape, np.float32)
        self.image = gpu.empty(shape, np.float32, stream)
        self.copied = gpu.event()  # the host may fill it again
        self.used = gpu.event()  # the device may be given the next tiles


class _Row:
    """One of the two places where a finished block waits on the device, in pieces."""

    def __init__(self, gpu: Device, size: int, stream: Any) -> None:
        self.packed = gpu.empty((size,), np.float32, stream)
        self.ready = gpu.event()
        self.stored: Future[None] | None = None

    def wait(self) -> None:
        """Wait until the block that is here is stored; raises what went wrong with it."""
        if self.stored is not None:
            self.stored.result()
            self.stored = None


class _Piece(NamedTuple):
    """A part of a finished block, cut along z, and where in a `_Row` it lies."""

    z: slice
    y: slice
    shape: tuple[int, ...]
    at: slice


class _Landing:
    """One of the two places where a piece reaches the host."""

    def __init__(self, gpu: Device, size: int) -> None:
        self.host = gpu.pinned((size,), np.float32)
        self.copied = gpu.event()
        self.block: Block

    def take(self, piece: _Piece, packed: Any, stream: Any) -> None:
        """Queue the copy of a piece."""
        host = self.host[: math.prod(piece.shape)]
        packed[piece.at].copy_to_host(host, stream=stream)
        self.copied.record(stream)
        self.block = Block(piece.z, piece.y, host.reshape(piece.shape))

    def hand_on(self, out: HandOver) -> None:
        """Wait for the piece and hand it on."""
        self.copied.synchronize()
        out.block(self.block)


class _Run:
    """One attempt, with a batch that may turn out too large."""

    def __init__(
        self,
        read: Read,
        grid: TileGrid,
        session: DeviceSession,
        band: tuple[int, int, int],
        batch: int,
        out: HandOver,
        on_device: bool,
    ) -> None:
        gpu = session.gpu
        self.read, self.grid, self.session, self.out = read, grid, session, out
        self.up, self.down = gpu.stream(), gpu.stream()
        session.reserve(batch, grid.tile)
        self.batch = batch
        depth, height, _ = grid.tile
        self.plane = out.channels(session.output_channels) * height * grid.axes[2].length
        self.planes = max(1, min(depth, PIECE_VALUES // self.plane))  # of a piece
        self.uploads = [self._upload()]
        carried = None if on_device else lambda shape: gpu.in_host_memory(shape, np.float32)
        self.sums = DeviceSums(gpu, session.stream, carried)
        self.marks: list[tuple[Any, Any]] = []
        since, self.first, stop = band
        tiles = [tile for tile in grid if since <= tile.index[0] < stop]
        self.batches = [tiles[i : i + batch] for i in range(0, len(tiles), batch)]

    def _upload(self) -> _Upload:
        shape = (self.batch, 1, *self.grid.tile)
        return _Upload(self.session.gpu, shape, self.session.stream)

    def _make_room(self) -> None:
        """Take the rest of the memory, which takes about as long as reading the first tiles."""
        gpu, stream, tile = self.session.gpu, self.session.stream, self.grid.tile
        self.uploads.append(self._upload())
        shape = (self.batch, self.session.output_channels, *tile)
        self.fields = gpu.empty(shape, np.float32, stream)
        self.rows = [_Row(gpu, tile[0] * self.plane, stream) for _ in range(2)]
        self.landings = [_Landing(gpu, self.planes * self.plane) for _ in range(2)]

    def go(self) -> float:
        """Run everything; returns the seconds of the network."""
        tiles = self.out.tiles(self._predict(), self._to_host)
        activate = self.session.gpu.activate
        with ThreadPoolExecutor(1, "store", activate) as store:
            for turn, block in enumerate(merge(self.grid, tiles, self.sums, self.first)):
                self._fetch(block, self.rows[turn % 2], store)
            for row in self.rows:
                row.wait()
        self.session.stream.synchronize()
        milliseconds = sum(begin.elapsed_time(end) for begin, end in self.marks)
        return float(milliseconds) / 1000.0

    def _predict(self) -> Iterator[tuple[Tile, Any]]:
        """Queue the network batch by batch; the fields of a tile are valid until the next."""
        gpu, stream = self.session.gpu, self.session.stream
        with ThreadPoolExecutor(1, "read", gpu.activate) as reader:
            filling = reader.submit(self._fill, self.uploads[0], self.batches[0])
            self._make_room()
            for turn, batch in enumerate(self.batches):
                upload = self.uploads[turn % 2]
                filling.result()
                if turn + 1 < len(self.batches):
                    other = self.uploads[(turn + 1) % 2]
                    filling = reader.submit(self._fill, other, self.batches[turn + 1])
                count = len(batch)
                upload.copied.wait(stream)
                begin, end = gpu.event(), gpu.event()
                begin.record(stream)
                self.session.enqueue(upload.image[:count], self.fields[:count])
                end.record(stream)
                self.marks.append((begin, end))
                upload.used.record(stream)
                for index, tile in enumerate(batch):
                    yield tile, self.fields[index]

    def _to_host(self, fields: Any) -> NDArray[np.float32]:
        """Copy a tile's fields, for decoders that want tiles; the device waits meanwhile."""
        copy: NDArray[np.float32] = fields.copy_to_host(stream=self.session.stream)
        self.session.stream.synchronize()
        return copy

    def _fill(self, upload: _Upload, batch: Sequence[Tile]) -> None:
        """Read tiles and queue their way to the device."""
        upload.copied.synchronize()
        for index, tile in enumerate(batch):
            self.read(tile, upload.host[index, 0])
        upload.used.wait(self.up)
        count = len(batch)
        upload.image[:count].copy_to_device(upload.host[:count], stream=self.up)
        upload.copied.record(self.up)

    def _fetch(self, block: Block, row: _Row, store: Executor) -> None:
        """Queue the way of a finished block out of the sums, and have it stored."""
        row.wait()
        pieces = list(self._pieces(block))
        for piece in pieces:
            first = piece.z.start - block.z.start
            self.sums.pack(block.fields, first, piece.shape[1], row.packed[piece.at])
        row.ready.record(self.session.stream)
        row.stored = store.submit(self._store, pieces, row)

    def _pieces(self, block: Block) -> Iterator[_Piece]:
        channels, (depth, height, width) = block.fields.array.shape[0], block.fields.shape
        plane = channels * height * width
        for first in range(0, depth, self.planes):
            last = min(first + self.planes, depth)
            z = slice(block.z.start + first, block.z.start + last)
            shape = (channels, last - first, height, width)
            yield _Piece(z, block.y, shape, slice(first * plane, last * plane))

    def _store(self, pieces: Sequence[_Piece], row: _Row) -> None:
        """Copy a block to the host and hand it on, a piece while the next is on its way."""
        row.ready.wait(self.down)
        for turn, piece in enumerate(pieces):
            landing = self.landings[turn % 2]
            landing.take(piece, row.packed, self.down)
            if turn:
                self.landings[1 - turn % 2].hand_on(self.out)
        self.landings[(len(pieces) - 1) % 2].hand_on(self.out)
