"""From an image on the model's grid to the network's merged fields."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.grid.model_image import ModelImage
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.engines.gpu_session import DeviceSession, SpreadSession
from cellrt.runtime.network.merge import Block, merge, predict
from cellrt.runtime.network.tiles import Tile, TileGrid


def network_fields(
    image: ModelImage,
    grid: TileGrid,
    session: Session,
    decoder: Decoder,
    advance: Callable[[int], None] = lambda done: None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[NDArray[Any], float]:
    """Run the network over all tiles and keep of the merged fields what the decoder needs.

    Parameters
    ----------
    image : ModelImage
    grid : TileGrid
        For the image's shape.
    session : Session
        Loaded for the grid's tile.
    decoder : Decoder
        Stores the fields.
    advance : callable
        Told how many voxels of the image are finished with every merged block.
    note : callable
        Told what a user should know of the device.

    Returns
    -------
    kept : ndarray
        The decoder's own form of the fields.
    seconds : float
        Time inside the engine.

    Raises
    ------
    EngineError
        The network returned NaN or infinite values.
    """
    kept = decoder.empty(grid.shape)
    finished: set[tuple[int, int]] = set()

    def read(tile: Tile) -> NDArray[np.float32]:
        z, y, x = (s + n for s, n in zip(tile.start, grid.tile, strict=True))
        return image.read(tile.start, (z, y, x))

    def finish(block: Block) -> None:
        # A sum is not finite exactly where a term is not, and needs no array of answers.
        if not np.isfinite(block.fields.sum()):
            raise EngineError(
                f"the network returned NaN or infinite values in {session.precision}; "
                "use --precision fp32, and report the model"
            )
        decoder.store(kept, block.z, block.y, block.fields)
        # On a device that runs out of memory blocks come a second time.
        if (block.z.start, block.y.start) not in finished:
            finished.add((block.z.start, block.y.start))
            advance(int(np.prod(block.fields.shape[1:])))

    if isinstance(session, DeviceSession):
        from cellrt.runtime.network.run_cuda import device_fields

        return kept, device_fields(read, grid, session, finish, note)
    sessions = session.sessions if isinstance(session, SpreadSession) else (session,)
    seconds = [0.0] * len(sessions)

    def network(index: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            begin = time.perf_counter()
            fields = sessions[index].infer(batch)
            seconds[index] += time.perf_counter() - begin
            return fields

        return infer

    for block in merge(grid, predict(grid, read, [network(i) for i in range(len(sessions))])):
        finish(block)
    return kept, max(seconds)
