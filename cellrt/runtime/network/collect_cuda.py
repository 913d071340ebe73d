"""The way of finished blocks from a GPU's sums to a decoder's collector.

Where the collector has a `Reduction` and the GPU the memory, what is kept of the volume stays there
until the network is done. Else blocks go to the host in pieces, one of which is stored while the
next one is on its way: reduced ones, where the collector has a `Reduction`, or all of the fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.base import Block
from cellrt.runtime.machine.kernels import to_device
from cellrt.runtime.network.engines.gpu_session import DeviceSession
from cellrt.runtime.network.hand_over import HandOver
from cellrt.runtime.network.merge_cuda import DeviceSums
from cellrt.runtime.network.tiles import TileGrid

# Of a piece that goes to the host: enough for the bus, few enough to store one meanwhile.
PIECE_BYTES = 1 << 24


class _Flag:
    """What a kernel found, a number on the device; looking at it does not hold up the device."""

    def __init__(self, session: DeviceSession) -> None:
        self.there = to_device(np.zeros(1, np.int32), session.stream)
        self._here = session.gpu.pinned((1,), np.int32)
        self._here[0] = 0

    def fetch(self, stream: Any) -> None:
        """Queue a copy."""
        self.there.copy_to_host(self._here, stream=stream)

    def __bool__(self) -> bool:
        return bool(self._here[0])  # as the last copy that is done found it


class _Way:
    """What both ways have in common.

    Parameters
    ----------
    session : DeviceSession
    grid : TileGrid
        Of the outputs.
    sums : DeviceSums
        Where blocks lie.
    out : HandOver
    """

    def __init__(
        self, session: DeviceSession, grid: TileGrid, sums: DeviceSums, out: HandOver
    ) -> None:
        self._session, self._grid, self._sums, self._out = session, grid, sums, out

    def close(self) -> None:
        """Stop what still runs, whether or not all of it went well."""


class Whole(_Way):
    """What is kept of the volume stays in the device's memory until all of it is there.

    It takes a `HandOver` with a `Reduction`.
    """

    def __init__(
        self, session: DeviceSession, grid: TileGrid, sums: DeviceSums, out: HandOver
    ) -> None:
        super().__init__(session, grid, sums, out)
        assert out.reduction is not None
        self._dtype, self._kernel = out.reduction.dtype, out.reduction.kernel()

    def make_room(self) -> None:
        """Take the memory."""
        gpu, stream = self._session.gpu, self._session.stream
        self._kept = gpu.empty((math.prod(self._grid.shape),), self._dtype, stream)
        self._wrong = _Flag(self._session)

    def take(self, block: Block) -> None:
        """Queue the reduction of a finished block."""
        depth = block.z.stop - block.z.start
        _, rows, columns = self._grid.shape
        start = (block.z.start * rows + block.y.start) * columns
        place = (self._kept, start, rows, self._wrong.there)
        self._sums.reduce(self._kernel, block.fields, 0, depth, *place)
        self._wrong.fetch(self._session.stream)
        self._out.refuse(bool(self._wrong))  # in one of the blocks before, which is early enough
        self._out.finished(block.z, block.y)

    def finish(self) -> None:
        """Wait for all that is queued, and hand it over."""
        self._session.stream.synchronize()
        self._out.refuse(bool(self._wrong))
        self._out.whole(self._kept.reshape(self._grid.shape))


class _Row:
    """One of the two places where a finished block waits on the device, in pieces."""

    def __init__(self, session: DeviceSession, size: int, dtype: np.dtype[Any]) -> None:
        self.packed = session.gpu.empty((size,), dtype, session.stream)
        self.ready = session.gpu.event()
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

    def __init__(self, session: DeviceSession, turn: int, size: int, dtype: np.dtype[Any]) -> None:
        self.host = session.pinned(f"piece {turn}", (size,), dtype)
        self.copied = session.gpu.event()
        self.piece: _Piece
        self.values: NDArray[Any]

    def take(self, piece: _Piece, packed: Any, stream: Any) -> None:
        """Queue the copy of a piece."""
        host = self.host[: math.prod(piece.shape)]
        packed[piece.at].copy_to_host(host, stream=stream)
        self.copied.record(stream)
        self.piece, self.values = piece, host.reshape(piece.shape)


class InPieces(_Way):
    """Blocks go to the host while the device goes on, and another thread stores them."""

    def __init__(
        self, session: DeviceSession, grid: TileGrid, sums: DeviceSums, out: HandOver
    ) -> None:
        super().__init__(session, grid, sums, out)
        channels, self._dtype = out.channels(session.output_channels), np.dtype(np.float32)
        self._kernel = None
        if out.reduction is not None:
            channels, self._dtype = 1, out.reduction.dtype
            self._kernel = out.reduction.kernel()
        self._channels = channels
        self._store = ThreadPoolExecutor(1, "store", session.gpu.activate)
        self._turn = 0

    def make_room(self) -> None:
        """Take the memory."""
        session, (depth, height, _) = self._session, self._grid.tile
        plane = self._channels * height * self._grid.axes[2].length
        self._planes = max(1, min(depth, PIECE_BYTES // (self._dtype.itemsize * plane)))
        self._down, self._wrong = session.gpu.stream(), _Flag(session)
        self._rows = [_Row(session, depth * plane, self._dtype) for _ in range(2)]
        size = self._planes * plane
        self._landings = [_Landing(session, turn, size, self._dtype) for turn in range(2)]

    def take(self, block: Block) -> None:
        """Queue the way of a finished block out of the sums, and have it stored."""
        row = self._rows[self._turn % 2]
        self._turn += 1
        row.wait()
        pieces = list(self._pieces(block))
        for piece in pieces:
            first, planes = piece.z.start - block.z.start, piece.z.stop - piece.z.start
            packed = row.packed[piece.at]
            if self._kernel is None:
                self._sums.pack(block.fields, first, planes, packed)
            else:
                rows = block.fields.shape[1]
                place = (packed, 0, rows, self._wrong.there)
                self._sums.reduce(self._kernel, block.fields, first, planes, *place)
        row.ready.record(self._session.stream)
        row.stored = self._store.submit(self._store_row, pieces, row)

    def finish(self) -> None:
        """Wait until everything is stored."""
        for row in self._rows:
            row.wait()

    def close(self) -> None:
        """Stop the thread that stores."""
        self._store.shutdown(wait=True, cancel_futures=True)

    def _pieces(self, block: Block) -> Iterator[_Piece]:
        depth, height, width = block.fields.shape
        for first in range(0, depth, self._planes):
            last = min(first + self._planes, depth)
            z = slice(block.z.start + first, block.z.start + last)
            shape = (self._channels, last - first, height, width)
            plane = self._channels * height * width
            yield _Piece(z, block.y, shape, slice(first * plane, last * plane))

    def _store_row(self, pieces: Sequence[_Piece], row: _Row) -> None:
        """Copy a block to the host and hand it on, a piece while the next is on its way."""
        row.ready.wait(self._down)
        self._wrong.fetch(self._down)  # before the pieces, which are waited for
        for turn, piece in enumerate(pieces):
            self._landings[turn % 2].take(piece, row.packed, self._down)
            if turn:
                self._hand_on(self._landings[1 - turn % 2])
        self._hand_on(self._landings[(len(pieces) - 1) % 2])

    def _hand_on(self, landing: _Landing) -> None:
        """Wait for a piece and hand it on."""
        landing.copied.synchronize()
        z, y = landing.piece.z, landing.piece.y
        if self._kernel is None:
            self._out.block(Block(z, y, landing.values))
        else:
            self._out.refuse(bool(self._wrong))
            self._out.reduced(z, y, landing.values[0])
