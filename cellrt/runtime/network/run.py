"""From an image to the network's merged fields on the model's grid."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.runtime.decoding.registry import Decoder
from cellrt.runtime.grid.intensity import IntensityRange, estimate_range, normalise
from cellrt.runtime.grid.resample import resample_planes
from cellrt.runtime.model.card import Normalisation
from cellrt.runtime.network.engines.gpu_session import DeviceSession, SpreadSession
from cellrt.runtime.network.engines.ladder import Session
from cellrt.runtime.network.merge import Block, merge, predict
from cellrt.runtime.network.tiles import Shape, Tile, TileGrid

# Planes of the model's grid that are resampled to measure the intensity range.
SAMPLED_PLANES = 24


@dataclass(frozen=True)
class ModelImage:
    """An image as the network sees it: on the model's grid, normalised.

    ``source`` is the input itself where the grids agree (tiles are then read and normalised one by
    one, straight from the file), else a resampled and normalised float16 copy.
    """

    source: NDArray[np.generic]
    intensity: IntensityRange
    ready: bool

    @property
    def shape(self) -> Shape:
        """Shape (z, y, x) on the model's grid."""
        z, y, x = self.source.shape
        return z, y, x

    def read(self, start: Shape, stop: Shape) -> NDArray[np.float32]:
        """Read a box, mirrored at the far faces where it reaches beyond the image.

        Returns
        -------
        ndarray, float32, shape stop - start
        """
        inside = tuple(slice(a, min(b, n)) for a, b, n in zip(start, stop, self.shape, strict=True))
        box = self.source[inside]
        image = box.astype(np.float32) if self.ready else normalise(box, self.intensity)
        missing = [b - a - n for a, b, n in zip(start, stop, image.shape, strict=True)]
        if any(missing):
            image = np.pad(image, [(0, m) for m in missing], mode="symmetric")
        return np.ascontiguousarray(image)


def prepare_image(
    image: NDArray[np.generic], shape: Shape, normalisation: Normalisation
) -> ModelImage:
    """Bring an image to the model's grid and measure its intensity range there.

    The range is measured after resampling, as in training: averaging takes noise away, and with it
    the extremes that noise adds.

    Parameters
    ----------
    image : ndarray, any real dtype, shape (z, y, x)
    shape : (int, int, int)
        Shape on the model's grid.
    normalisation : Normalisation
        Percentiles.
    """
    if image.shape == shape:
        return ModelImage(image, estimate_range(image, normalisation), ready=False)
    step = max(1, shape[0] // SAMPLED_PLANES)
    sampled = resample_planes(image, shape, range(step // 2, shape[0], step))
    intensity = estimate_range(np.stack([plane for _, plane in sampled]), normalisation)
    ready = np.empty(shape, np.float16)
    for z, plane in resample_planes(image, shape):
        ready[z] = normalise(plane, intensity)
    return ModelImage(ready, intensity, ready=True)


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
