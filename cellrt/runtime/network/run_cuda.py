"""The network stage on a GPU: copies, inference and merging overlap, only finished pieces return.

Three streams, each in order by itself, wait for one another through events::

    host     fill tile 2        fill tile 3       store piece 0     fill tile 4
    upload          tile 2             tile 3                              tile 4
    compute  tile 1: network, add     tile 2: network, add     tile 3: ...
    download                    piece 0                  piece 1

The host fills one of two pinned buffers with the next tiles while the device works on those before,
and stores a finished piece while the device computes the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.base import Block
from cellrt.runtime.machine.gpu import Device, DeviceMemoryError
from cellrt.runtime.network.engines.gpu_session import DeviceSession
from cellrt.runtime.network.hand_over import HandOver
from cellrt.runtime.network.merge import merge
from cellrt.runtime.network.tiles import Tile, TileGrid

Read = Callable[[Tile], NDArray[np.float32]]

# Activations that are alive at once in the bundled networks, per voxel of a tile, in fp32: what the
# first guess of the batch rests on. An engine that needs more says so, and the batch is halved.
WORK_BYTES_PER_VOXEL = 360
# Share of the free memory to fill; the screen and other programs need some.
MEMORY_SHARE = 0.8


def device_fields(
    read: Read,
    grid: TileGrid,
    session: DeviceSession,
    out: HandOver,
    note: Callable[[str], None] = lambda text: None,
) -> float:
    """Run the network over all tiles on a GPU and merge them there.

    Parameters
    ----------
    read : callable
        Gives the normalised image of a tile, float32 (z, y, x).
    grid : TileGrid
    session : DeviceSession
    out : HandOver
        Given what leaves the device. Where too large a batch runs out of memory, it starts again.
    note : callable
        Told when the batch is halved for want of memory.

    Returns
    -------
    float
        Seconds that the network itself took on the device.

    Raises
    ------
    DeviceMemoryError
        There is too little device memory for one tile.
    """
    batch = _first_batch(session, grid)
    while True:
        try:
            return _Run(read, grid, session, batch, out).go()
        except DeviceMemoryError as error:
            if batch == 1:
                raise
            batch //= 2
            out.restart()
            note(f"{error.message}; going on with {batch} at a time")


def _first_batch(session: DeviceSession, grid: TileGrid) -> int:
    """Tiles at once that should fit into the free memory."""
    voxels = int(np.prod(grid.tile))
    # Image twice, fields once, and what the network needs in between.
    tile_bytes = voxels * (4 * (2 + session.output_channels) + WORK_BYTES_PER_VOXEL)
    fit = MEMORY_SHARE * session.gpu.free_bytes / tile_bytes
    return int(max(1, min(session.largest_batch, len(grid), fit)))


class _Upload:
    """One of the two places where tiles wait for the network."""

    def __init__(self, gpu: Device, shape: tuple[int, ...], stream: Any) -> None:
        self.host = gpu.pinned(shape, np.float32)
        self.image = gpu.empty(shape, np.float32, stream)
        self.copied = gpu.event()  # the host may fill it again
        self.used = gpu.event()  # the device may be given the next tiles


class _Download:
    """One of the two places where finished pieces wait for the host."""

    def __init__(self, gpu: Device, size: int, stream: Any) -> None:
        self.host = gpu.pinned((size,), np.float32)
        self.packed = gpu.empty((size,), np.float32, stream)
        self.ready = gpu.event()
        self.copied = gpu.event()
        self.block: Block | None = None

    def take(self, out: HandOver) -> None:
        """Wait for the piece that is on its way and hand it on."""
        if self.block is not None:
            self.copied.synchronize()
            out.block(self.block)
            self.block = None


class _Run:
    """One attempt, with a batch that may turn out too large."""

    def __init__(
        self, read: Read, grid: TileGrid, session: DeviceSession, batch: int, out: HandOver
    ) -> None:
        gpu = session.gpu
        self.read, self.grid, self.session, self.out = read, grid, session, out
        self.up, self.down = gpu.stream(), gpu.stream()
        session.reserve(batch, grid.tile)
        shape = (batch, 1, *grid.tile)
        self.uploads = [_Upload(gpu, shape, session.stream) for _ in range(2)]
        channels = session.output_channels
        self.fields = gpu.empty((batch, channels, *grid.tile), np.float32, session.stream)
        depth, height, _ = grid.tile
        merged = len(range(channels)[out.merged])
        size = merged * depth * height * grid.axes[2].length
        self.downloads = [_Download(gpu, size, session.stream) for _ in range(2)]
        self.marks: list[tuple[Any, Any]] = []
        tiles = list(grid)
        self.batches = [tiles[i : i + batch] for i in range(0, len(tiles), batch)]

    def go(self) -> float:
        """Run everything; returns the seconds of the network."""
        from cellrt.runtime.network.merge_cuda import DeviceSums

        gpu, stream = self.session.gpu, self.session.stream
        turn = 0
        tiles = self.out.tiles(self._predict(), self._to_host)
        for turn, block in enumerate(merge(self.grid, tiles, DeviceSums(gpu, stream))):
            download = self.downloads[turn % 2]
            download.take(self.out)
            self._fetch(block, download)
        for later in (1, 2):
            self.downloads[(turn + later) % 2].take(self.out)
        stream.synchronize()
        milliseconds = sum(begin.elapsed_time(end) for begin, end in self.marks)
        return float(milliseconds) / 1000.0

    def _predict(self) -> Iterator[tuple[Tile, Any]]:
        """Queue the network batch by batch; the fields of a tile are valid until the next."""
        gpu, stream = self.session.gpu, self.session.stream
        with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
            filling = reader.submit(self._fill, self.uploads[0], self.batches[0])
            for turn, batch in enumerate(self.batches):
                upload = self.uploads[turn % 2]
                filling.result()
                count = len(batch)
                upload.used.wait(self.up)
                upload.image[:count].copy_to_device(upload.host[:count], stream=self.up)
                upload.copied.record(self.up)
                upload.copied.wait(stream)
                if turn + 1 < len(self.batches):
                    other = self.uploads[(turn + 1) % 2]
                    other.copied.synchronize()
                    filling = reader.submit(self._fill, other, self.batches[turn + 1])
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
        for index, tile in enumerate(batch):
            upload.host[index, 0] = self.read(tile)

    def _fetch(self, block: Block, download: _Download) -> None:
        """Queue the way of a finished piece to the host."""
        stream = self.session.stream
        shape = block.fields.shape
        size = int(np.prod(shape))
        packed = download.packed[:size].reshape(shape)
        packed[:] = block.fields
        download.ready.record(stream)
        download.ready.wait(self.down)
        host = download.host[:size]
        download.packed[:size].copy_to_host(host, stream=self.down)
        download.copied.record(self.down)
        download.block = Block(block.z, block.y, host.reshape(shape))
