"""What engines on a GPU have in common: tiles lie in device memory, work is queued in a stream."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.machine.gpu import Device

LARGEST_BATCH = 4
"""Tiles at once: enough to fill a large GPU with tiles of half a million voxels."""

BATCH_VOXELS = 1 << 23
"""Voxels at once, unless one tile has more: with more, reading and storing only wait longer."""

# Of engines for any tile: the largest, beyond which the overlaps that it saves are few. It shall
# take a small part of a GPU, and where other programs use that, no large part of what they leave.
LARGEST_TILE_VOXELS = 1 << 23
SMALLEST_TILE_VOXELS = 1_200_000
SHARE_OF_ALL = 1 / 16
SHARE_OF_FREE = 1 / 4
# What an engine takes per voxel of a tile besides activations: image, fields, its own copies.
ENGINE_BYTES_PER_VOXEL = 104


def tile_voxels(gpu: Device, activation_bytes: int) -> int:
    """Voxels of the largest tile for a GPU; the same on every run of a GPU that is not in use.

    Parameters
    ----------
    gpu : Device
    activation_bytes : int
        The model card's, per voxel.
    """
    room = min(SHARE_OF_ALL * gpu.total_bytes, SHARE_OF_FREE * gpu.free_bytes)
    voxels = room / (activation_bytes + ENGINE_BYTES_PER_VOXEL)
    return int(max(SMALLEST_TILE_VOXELS, min(LARGEST_TILE_VOXELS, voxels)))


class DeviceSession(ABC):
    """A network on one GPU.

    Attributes
    ----------
    device, precision : str
        For people and the run record.
    gpu : Device
    stream : numba.cuda stream
        Where the network runs; what reads its output is queued there, too.
    output_channels, output_stride : int
        The latter as in the model's card.
    largest_batch : int
        Most tiles at once.
    """

    device: str
    precision: str
    gpu: Device
    stream: Any
    output_channels: int
    output_stride: int = 1
    largest_batch: int
    _buffers: tuple[Any, Any] | None = None
    _pinned: dict[str, NDArray[np.uint8]] | None = None

    @abstractmethod
    def reserve(self, batch: int, tile: Shape) -> None:
        """Make room for the work on a batch of tiles.

        Raises
        ------
        DeviceMemoryError
            There is too little for so many.
        """

    @abstractmethod
    def enqueue(self, image: Any, fields: Any) -> None:
        """Queue the network: image (n, 1, z, y, x) -> fields (n, channels, ...), on the device.

        Raises
        ------
        EngineError
            The engine refuses.
        DeviceMemoryError
            Too little device memory.
        """

    def pinned(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Pinned memory, one piece for each name.

        It stays for the next image, as the system takes longer to pin it than the device to fill
        it. Whoever asks for a name again gets what others still use.
        """
        if self._pinned is None:
            self._pinned = {}
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._pinned.get(name)
        if memory is None or memory.size < size:
            self._pinned.pop(name, None)
            memory = self._pinned[name] = self.gpu.pinned((size,), np.uint8)
        return memory[:size].view(dtype).reshape(shape)

    def forget_pinned(self) -> None:
        """Use pinned memory no more, as copies of a run that failed may be on their way."""
        self._pinned = None

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on tiles (n, 1, z, y, x) in the host's memory, and wait for it."""
        there, fields = self._place(image)
        self.enqueue(there, fields)
        result: NDArray[np.float32] = fields.copy_to_host(stream=self.stream)
        self.stream.synchronize()
        return result

    def in_place(self, image: NDArray[np.float32]) -> Callable[[], None]:
        """Copy tiles to the device; what is returned runs the network on them and waits for it."""
        there, fields = self._place(image)
        self.stream.synchronize()

        def run() -> None:
            self.enqueue(there, fields)
            self.stream.synchronize()

        return run

    def _place(self, image: NDArray[np.float32]) -> tuple[Any, Any]:
        """Queue the copy of tiles to the device; return them there, and room for their fields."""
        self.gpu.activate()
        count, _, *tile = image.shape
        self.reserve(count, (tile[0], tile[1], tile[2]))
        if self._buffers is None or self._buffers[0].shape != image.shape:
            shape = (count, self.output_channels, *(n // self.output_stride for n in tile))
            self._buffers = None
            self._buffers = (
                self.gpu.empty(image.shape, np.float32, self.stream),
                self.gpu.empty(shape, np.float32, self.stream),
            )
        there, fields = self._buffers
        there.copy_to_device(np.ascontiguousarray(image, np.float32), stream=self.stream)
        return there, fields


class SpreadSession:
    """A network on several GPUs, among which tiles are dealt out.

    Parameters
    ----------
    sessions : sequence of DeviceSession
        One per GPU, all alike.
    """

    def __init__(self, sessions: Sequence[DeviceSession]) -> None:
        self.sessions = tuple(sessions)
        self.device = f"{len(sessions)} x {sessions[0].device}"
        self.precision = sessions[0].precision

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on the first GPU."""
        return self.sessions[0].infer(image)


def on_all(sessions: Sequence[DeviceSession]) -> DeviceSession | SpreadSession:
    """One session as it is, several as one."""
    return sessions[0] if len(sessions) == 1 else SpreadSession(sessions)
