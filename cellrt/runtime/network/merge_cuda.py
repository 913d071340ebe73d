"""Tiles summed in a device's memory, see :mod:`cellrt.runtime.network.merge`.

Arrays are handed to kernels whole, with offsets: numba-cuda walks over every row of a slice in
Python, assigns through temporary arrays whose end stops the device, and drops the stream of what it
reshapes, so that the device and the host wait for one another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from cellrt.geometry import Shape
from cellrt.runtime.machine.gpu import Device
from cellrt.runtime.machine.kernels import kernel, launch, place_of, to_device
from cellrt.runtime.network.merge import Weights


class Corner(NamedTuple):
    """The first planes, rows and columns of an array (channels, z, y, x) on a device."""

    array: Any
    shape: Shape


class DeviceSums:
    """Sums of tiles on a device; everything is queued in one stream, and nothing waits.

    Parameters
    ----------
    device : Device
    stream : numba.cuda stream
    carried : callable, optional
        Where what a layer of tiles leaves for the next lies, given its shape; in the device's
        memory by default.
    """

    def __init__(
        self, device: Device, stream: Any, carried: Callable[[tuple[int, ...]], Any] | None = None
    ) -> None:
        self._device = device
        self._stream = stream
        self._carried = carried or self.empty
        self._weights: dict[bytes, Any] = {}

    def empty(self, shape: tuple[int, ...]) -> Any:
        """See `Sums`; an axis without length gets one, as a device has no empty arrays."""
        return self._device.empty(_not_empty(shape), np.float32, self._stream)

    def carried(self, shape: tuple[int, ...]) -> Any:
        """See `Sums`."""
        return self._carried(_not_empty(shape))

    def begin(self, sums: Any, carried: Any, fresh: int, reach: int, y: int) -> None:
        """See `Sums`."""
        channels, depth, height, width = sums.shape
        count = channels * depth * (height - fresh) * width
        launch(_begin, count, sums, carried, fresh, reach, y, stream=self._stream)

    def add(self, sums: Any, fields: Any, weights: Weights, x: int) -> None:
        """See `Sums`."""
        there = [self._on_device(axis) for axis in weights]
        voxels = fields.size // fields.shape[0]
        launch(_add_weighted, voxels, sums, fields, *there, x, stream=self._stream)

    def carry(self, sums: Any, carried: Any, z: int, rows: int, y: int) -> None:
        """See `Sums`."""
        channels, depth, _, width = sums.shape
        count = channels * (depth - z) * rows * width
        launch(_carry, count, sums, carried, z, rows, y, stream=self._stream)

    def move_up(self, sums: Any, rows: int) -> None:
        """See `Sums`."""
        channels, depth, _, width = sums.shape
        launch(_move_up, channels * depth * width, sums, rows, stream=self._stream)

    def corner(self, sums: Any, shape: Shape) -> Corner:
        """See `Sums`; nothing is cut out yet."""
        return Corner(sums, shape)

    def pack(self, corner: Corner, first: int, planes: int, packed: Any) -> None:
        """Write some planes of a corner, all channels, to the begin of a flat array."""
        _, height, width = corner.shape
        count = corner.array.shape[0] * planes * height * width
        box = (first, planes, height, width)
        launch(_pack, count, corner.array, *box, packed, stream=self._stream)

    def reduce(
        self,
        kernel: Any,
        corner: Corner,
        first: int,
        planes: int,
        kept: Any,
        start: int,
        rows: int,
        wrong: Any,
    ) -> None:
        """Launch a kernel on some planes of a corner, see `Reduction` for what it writes."""
        _, height, width = corner.shape
        count = planes * height * width
        box, place = (first, planes, height, width), (kept, start, rows)
        launch(kernel, count, corner.array, *box, *place, wrong, stream=self._stream)

    def _on_device(self, weights: Any) -> Any:
        """One axis' weights, copied once: the tiles of a volume share a handful."""
        key = weights.tobytes()
        if key not in self._weights:
            self._weights[key] = to_device(weights, self._stream)
        return self._weights[key]


def _not_empty(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, n) for n in shape)


@kernel
def _begin(sums, carried, fresh, reach, y_start):  # type: ignore[no-untyped-def]
    channels, depth, height, width = sums.shape
    rows = height - fresh
    for i in range(cuda.grid(1), channels * depth * rows * width, cuda.gridsize(1)):
        plane, row, x = place_of(i, rows, width)
        y, c = fresh + row, plane // depth
        z = plane - c * depth
        sums[c, z, y, x] = carried[c, z, y_start + y, x] if z < reach else np.float32(0)


@kernel
def _add_weighted(sums, fields, wz, wy, wx, x_start):  # type: ignore[no-untyped-def]
    """As the host's kernel does, one voxel of the tile after the other in each thread."""
    channels, depth, height, width = fields.shape
    for i in range(cuda.grid(1), depth * height * width, cuda.gridsize(1)):
        z, y, x = place_of(i, height, width)
        weight = wz[z] * wy[y]
        if weight != 0:
            for c in range(channels):
                sums[c, z, y, x_start + x] += fields[c, z, y, x] * (weight * wx[x])


@kernel
def _carry(sums, carried, z_start, rows, y_start):  # type: ignore[no-untyped-def]
    channels, depth, _, width = sums.shape
    planes = depth - z_start
    for i in range(cuda.grid(1), channels * planes * rows * width, cuda.gridsize(1)):
        plane, y, x = place_of(i, rows, width)
        c = plane // planes
        z = plane - c * planes
        carried[c, z, y_start + y, x] = sums[c, z_start + z, y, x]


@kernel
def _move_up(sums, rows):  # type: ignore[no-untyped-def]
    """Each thread moves a column along y, whose values are nobody else's."""
    channels, depth, height, width = sums.shape
    for i in range(cuda.grid(1), channels * depth * width, cuda.gridsize(1)):
        c, z, x = place_of(i, depth, width)
        for y in range(height - rows):
            sums[c, z, y, x] = sums[c, z, y + rows, x]


@kernel
def _pack(sums, first, planes, height, width, packed):  # type: ignore[no-untyped-def]
    for i in range(cuda.grid(1), sums.shape[0] * planes * height * width, cuda.gridsize(1)):
        plane, y, x = place_of(i, height, width)
        c = plane // planes
        packed[i] = sums[c, first + plane - c * planes, y, x]
