"""The network stage on a GPU: copies, inference and merging overlap, only finished pieces return.

Three streams, each in order by itself, wait for one another through events::

    read     fill tiles 2       fill tiles 3       fill tiles 4
    upload          tiles 2            tiles 3            tiles 4
    compute  tiles 1: network, add     tiles 2: network, add     tiles 3: ...
    download                    row 0 in pieces
    store                         row 0 in pieces

One thread of the host queues the network and the merging and does nothing else; another fills one
of two pinned buffers with the next tiles and queues their copy. Engines may keep the first waiting:
the other does not wait for it. What is kept of a finished row stays on the device where it can;
only else is there a third thread, see :mod:`cellrt.runtime.network.collect_cuda`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.machine.gpu import DeviceMemoryError
from cellrt.runtime.network.collect_cuda import InPieces, Whole
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
# Bytes per voxel of the labels, which are found beside what is kept.
LABEL_BYTES = 4


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
    # What several devices keep comes together in the host's memory.
    keep = out.reduction.dtype.itemsize if out.reduction and len(shares) == 1 else 0
    rooms = [_first_room(s, grid, out.channels(s.output_channels), keep) for s, _ in shares]
    room = _Room(
        min(each.batch for each in rooms),
        all(each.kept for each in rooms),
        all(each.carried for each in rooms),
    )

    def run(share: tuple[DeviceSession, tuple[int, int, int]]) -> float:
        session, band = share
        session.gpu.activate()
        return _Run(read, grid, session, band, room, out).go()

    def attempt() -> float:
        """In a frame of its own: what a failed one has in a device's memory goes with it."""
        if len(shares) == 1:
            return run(shares[0])
        with ThreadPoolExecutor(len(shares), "gpu") as pool:
            running = [pool.submit(run, share) for share in shares]
        return max(each.result() for each in running)

    while True:
        try:
            return attempt()
        except DeviceMemoryError as error:
            if room.batch > 1:
                room = replace(room, batch=room.batch // 2)
                words = f"{room.batch} at a time"
            elif room.kept:
                room = replace(room, kept=False)
                words = "what is kept of finished tiles in the host's memory"
            elif room.carried:
                room = replace(room, carried=False)
                words = "what a layer of tiles leaves for the next in the host's memory"
            else:
                raise
            out.restart()
            note(f"{error.message}; going on with {words}")


@dataclass(frozen=True)
class _Room:
    """What lies in a device's memory.

    Parameters
    ----------
    batch : int
        Tiles at once.
    kept : bool
        All that the decoder's collector keeps of the volume.
    carried : bool
        What a layer of tiles leaves for the next.
    """

    batch: int
    kept: bool
    carried: bool


def _first_room(session: DeviceSession, grid: TileGrid, merged: int, keep: int) -> _Room:
    """What should fit into the free memory, where `keep` bytes per voxel may be kept there."""
    voxels = math.prod(grid.tile)
    # Image twice, fields once, and what the network needs in between.
    fields = 4 * session.output_channels * math.prod(grid.outputs.tile)
    tile_bytes = voxels * (4 * 2 + WORK_BYTES_PER_VOXEL) + fields
    row, carried = (4 * merged * values for values in merge_values(grid.outputs))
    kept = keep * math.prod(grid.outputs.shape)
    labels = LABEL_BYTES * math.prod(grid.shape)
    # The row that is summed, and two that are on their way to the host.
    room = MEMORY_SHARE * session.gpu.free_bytes - 3 * row
    carry = carried + tile_bytes <= room
    room -= carried if carry else 0
    # Labels come after tiles, but not after what an engine took for these.
    stay = bool(kept) and carry and kept + labels + tile_bytes <= room
    room -= kept if stay else 0
    most = min(session.largest_batch, len(grid), BATCH_VOXELS // voxels)
    return _Room(int(max(1, min(most, room / tile_bytes))), stay, carry)


class _Upload:
    """One of the two places where tiles wait for the network."""

    def __init__(self, session: DeviceSession, turn: int, shape: tuple[int, ...]) -> None:
        gpu, stream = session.gpu, session.stream
        self.host = session.pinned(f"tiles {turn}", shape, np.float32)
        self.image = gpu.empty(shape, np.float32, stream)
        self.copied = gpu.event()  # the host may fill it again
        self.used = gpu.event()  # the device may be given the next tiles


class _Run:
    """One attempt, with a batch that may turn out too large."""

    def __init__(
        self,
        read: Read,
        grid: TileGrid,
        session: DeviceSession,
        band: tuple[int, int, int],
        room: _Room,
        out: HandOver,
    ) -> None:
        gpu = session.gpu
        self.read, self.grid, self.session, self.out = read, grid, session, out
        self.up = gpu.stream()
        self.batch = room.batch
        session.reserve(self.batch, grid.tile)
        self.uploads = [self._upload(0)]
        carried = None if room.carried else lambda shape: gpu.in_host_memory(shape, np.float32)
        self.sums = DeviceSums(gpu, session.stream, carried)
        way = Whole if room.kept else InPieces
        self.collect = way(session, grid.outputs, self.sums, out)
        self.marks: list[tuple[Any, Any]] = []
        since, self.first, stop = band
        tiles = [tile for tile in grid if since <= tile.index[0] < stop]
        self.batches = [tiles[i : i + self.batch] for i in range(0, len(tiles), self.batch)]

    def _upload(self, turn: int) -> _Upload:
        return _Upload(self.session, turn, (self.batch, 1, *self.grid.tile))

    def _make_room(self) -> None:
        """Take the rest of the memory, which takes about as long as reading the first tiles."""
        session = self.session
        self.uploads.append(self._upload(1))
        shape = (self.batch, session.output_channels, *self.grid.outputs.tile)
        self.fields = session.gpu.empty(shape, np.float32, session.stream)
        self.collect.make_room()

    def go(self) -> float:
        """Run everything; returns the seconds of the network."""
        tiles = self.out.tiles(self._predict(), self._to_host)
        try:
            for block in merge(self.grid.outputs, tiles, self.sums, self.first):
                self.collect.take(block)
            self.collect.finish()
        except BaseException:
            self.session.forget_pinned()
            raise
        finally:
            self.collect.close()
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
                    yield self.grid.output(tile), self.fields[index]

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
