"""From the network to a decoder's collector: what is handed over is checked and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.runtime.decoding.base import (
    Block,
    Collector,
    Decoder,
    ReducedCollector,
    Reduction,
    TileCollector,
    TileFields,
)
from cellrt.runtime.machine.transfer import host_array
from cellrt.runtime.network.tiles import Tile, TileGrid


class HandOver:
    """Gives a decoder's collector merged blocks, and the tiles they come from if it wants them.

    Parameters
    ----------
    decoder : Decoder
    grid : TileGrid
        What is handed over is in voxels of its outputs.
    precision : str
        What the network computes in, for the error about values that are no numbers.
    advance : callable
        Told how many voxels of the volume are finished with every merged block.
    """

    def __init__(
        self,
        decoder: Decoder,
        grid: TileGrid,
        precision: str,
        advance: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.merged = decoder.merged
        self._decoder, self._grid = decoder, grid
        self._precision, self._advance = precision, advance
        self._lock = threading.Lock()  # a collector is asked for one thing at a time
        self._finished: set[tuple[int, int]] = set()
        self._collector: Collector = decoder.collector(grid.shape)

    def channels(self, outputs: int) -> int:
        """How many of a network's output channels are merged."""
        return len(range(outputs)[self.merged])

    @property
    def reduction(self) -> Reduction | None:
        """How a GPU makes what the collector keeps, if it can."""
        return getattr(self._collector, "reduction", None)

    def restart(self) -> None:
        """Forget what was handed over: all of it comes again."""
        del self._collector  # its memory goes back before more is asked for
        self._collector = self._decoder.collector(self._grid.shape)

    def tiles(
        self,
        predictions: Iterable[tuple[Tile, Any]],
        to_host: Callable[[Any], NDArray[np.float32]] = lambda fields: fields,
    ) -> Iterator[tuple[Tile, Any]]:
        """Pass tiles on to the merge, with no more channels than are merged.

        Parameters
        ----------
        predictions : iterable of (Tile, array)
            In the grid's order; (channels, z, y, x), float32.
        to_host : callable
            Copies the fields of a tile out of a device's memory.

        Raises
        ------
        EngineError
            The network returned NaN or infinite values.
        """
        for tile, fields in predictions:
            if self._decoder.merging == "per tile":
                whole = to_host(fields)
                self._check(whole)
                with self._lock:
                    collector = cast(TileCollector, self._collector)
                    collector.add_tile(TileFields(tile.start, self._grid.outputs.own(tile), whole))
            yield tile, fields[self.merged]

    def block(self, block: Block) -> None:
        """Hand over a merged block that is on the host; from any thread.

        Raises
        ------
        EngineError
            The network returned NaN or infinite values.
        """
        self._check(block.fields)
        with self._lock:
            self._collector.add(block)
            self.finished(block.z, block.y)

    def reduced(self, z: slice, y: slice, values: NDArray[Any]) -> None:
        """Hand over what a GPU made of a block, on the host; from any thread."""
        with self._lock:
            cast(ReducedCollector, self._collector).put(z, y, values)
            self.finished(z, y)

    def whole(self, kept: Any) -> None:
        """Hand over what a GPU made of the volume and holds, of which all blocks are finished."""
        reduction = self.reduction
        assert reduction is not None
        kept = kept if reduction.stays else host_array(kept)
        cast(ReducedCollector, self._collector).put_whole(kept)

    def finished(self, z: slice, y: slice) -> None:
        """Count a block; after a new start blocks come a second time."""
        if (z.start, y.start) not in self._finished:
            self._finished.add((z.start, y.start))
            depth, height, width = self._grid.shape
            stride = self._grid.stride
            rows = min(stride * y.stop, height) - stride * y.start
            self._advance((min(stride * z.stop, depth) - stride * z.start) * rows * width)

    def kept(self) -> Any:
        """What the decoder decodes, once everything was handed over."""
        return self._collector.kept()

    def refuse(self, wrong: bool) -> None:
        """End the run if a value is not finite.

        Raises
        ------
        EngineError
            The network returned NaN or infinite values.
        """
        if wrong:
            raise EngineError(
                f"the network returned NaN or infinite values in {self._precision}; "
                "use --precision fp32, and report the model"
            )

    def _check(self, fields: NDArray[np.float32]) -> None:
        # A sum is not finite exactly where a term is not, and needs no array of answers.
        self.refuse(not np.isfinite(fields.sum()))
