"""Tiles summed in a device's memory, see :mod:`cellrt.runtime.network.merge`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from cellrt.runtime.machine.gpu import Device
from cellrt.runtime.machine.kernels import launch
from cellrt.runtime.network.merge import Weights


class DeviceSums:
    """Sums of tiles on a device; everything is queued in one stream.

    Parameters
    ----------
    device : Device
    stream : numba.cuda stream
    """

    def __init__(self, device: Device, stream: Any) -> None:
        self._device = device
        self._stream = stream
        self._weights: dict[bytes, Any] = {}

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """See `Sums`; an axis without length gets one, as a device has no empty arrays."""
        array = self._device.empty(tuple(max(1, n) for n in shape), np.float32, self._stream)
        array[:] = np.float32(0)
        return array

    def add(self, sums: Any, fields: Any, weights: Weights, x: int) -> None:
        """See `Sums`."""
        there = [self._on_device(axis) for axis in weights]
        voxels = fields.size // fields.shape[0]
        launch(_add_weighted, voxels, sums, fields, *there, x, stream=self._stream)

    def _on_device(self, weights: Any) -> Any:
        """One axis' weights, copied once: the tiles of a volume share a handful."""
        key = weights.tobytes()
        if key not in self._weights:
            self._weights[key] = cuda.to_device(weights, stream=self._stream)
        return self._weights[key]


@cuda.jit
def _add_weighted(sums, fields, wz, wy, wx, x_start):  # type: ignore[no-untyped-def]
    """As the host's kernel does, one voxel of the tile after the other in each thread."""
    channels, depth, height, width = fields.shape
    for i in range(cuda.grid(1), depth * height * width, cuda.gridsize(1)):
        row = i // width
        x, z = i - row * width, row // height
        y = row - z * height
        weight = wz[z] * wy[y]
        if weight != 0:
            for c in range(channels):
                sums[c, z, y, x_start + x] += fields[c, z, y, x] * (weight * wx[x])
