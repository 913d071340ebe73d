"""From an image on the model's grid to what a decoder keeps of the network's fields."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.grid.model_image import ModelImage
from cellrt.runtime.network.engines.base import Session, takes_place
from cellrt.runtime.network.engines.gpu_session import DeviceSession, SpreadSession
from cellrt.runtime.network.hand_over import HandOver
from cellrt.runtime.network.merge import merge, predict
from cellrt.runtime.network.tiles import Tile, TileGrid
from cellrt.runtime.network.views import ViewsSession, view_weights


def network_fields(
    image: ModelImage,
    grid: TileGrid,
    session: Session,
    decoder: Decoder,
    advance: Callable[[int], None] = lambda done: None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Any, float]:
    """Run the network over all tiles and keep of the fields what the decoder needs.

    Parameters
    ----------
    image : ModelImage
    grid : TileGrid
        For the image's shape.
    session : Session
        Loaded for the grid's tile.
    decoder : Decoder
        Its collector takes merged blocks, and tiles where it asks for them.
    advance : callable
        Told how many voxels of the image are finished with every merged block.
    note : callable
        Told what a user should know of the device.

    Returns
    -------
    kept : Any
        The decoder's own form of the fields.
    seconds : float
        Time inside the engine.

    Raises
    ------
    EngineError
        The network returned NaN or infinite values.
    """
    out = HandOver(decoder, grid, session.precision, advance)

    def read(tile: Tile, into: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        z, y, x = (s + n for s, n in zip(tile.start, grid.tile, strict=True))
        return image.read(tile.start, (z, y, x), into)

    sessions = session.sessions if isinstance(session, SpreadSession) else (session,)
    on_devices = [each for each in sessions if isinstance(each, DeviceSession)]
    # Tiles come in the grid's order to a decoder that wants them: from one device at a time.
    if on_devices and (len(on_devices) == 1 or decoder.merging == "weighted"):
        from cellrt.runtime.network.run_cuda import device_fields

        taken = device_fields(read, grid, on_devices, out, note)
        return out.kept(), taken
    seconds = [0.0] * len(sessions)

    # What else is told with a tile: the weights of views, which are those of the image.
    told = (view_weights(image.enlarged),) if isinstance(session, ViewsSession) else ()

    def network(index: int) -> Callable[..., NDArray[np.float32]]:
        def infer(batch: NDArray[np.float32], *start: Shape) -> NDArray[np.float32]:
            begin = time.perf_counter()
            fields = sessions[index].infer(batch, *start, *told)
            seconds[index] += time.perf_counter() - begin
            return fields

        return infer

    networks = [network(i) for i in range(len(sessions))]
    tiles = predict(grid, read, networks, placed=takes_place(session))
    for block in merge(grid.outputs, out.tiles(tiles)):
        out.block(block)
    return out.kept(), max(seconds)
