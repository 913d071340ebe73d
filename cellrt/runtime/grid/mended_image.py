"""An image as it is read for the network: without the defects that were found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Box, Shape
from cellrt.runtime.grid.defects import Defects, FloatArray, computable, find_defects, no_defects
from cellrt.runtime.grid.hot_pixels import without_hot_pixels
from cellrt.runtime.image.source import Voxels


@dataclass(frozen=True)
class MendedImage:
    """An image, or a box of it, whose defects are mended while it is read.

    Parameters
    ----------
    source : ndarray or VoxelSource, any real dtype, shape (z, y, x)
        The whole image; read box by box.
    defects : Defects
        Of the whole image.
    start, stop : (int, int, int)
        The box.
    near : (box, ndarray), optional
        Voxels of the source that are in memory already, see :meth:`held`.
    """

    source: Voxels
    defects: Defects
    start: Shape
    stop: Shape
    near: tuple[Box, NDArray[Any]] | None = None

    @property
    def shape(self) -> Shape:
        """Shape (z, y, x) of the box."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def crop(self, box: tuple[slice, slice, slice]) -> MendedImage:
        """A box of this box."""
        parts = [part.indices(n)[:2] for part, n in zip(box, self.shape, strict=True)]
        z, y, x = ((s + a, s + b) for s, (a, b) in zip(self.start, parts, strict=True))
        return replace(self, start=(z[0], y[0], x[0]), stop=(z[1], y[1], x[1]))

    def read(self, start: Shape, stop: Shape) -> tuple[FloatArray, NDArray[np.bool_] | None]:
        """Read a box of voxels, float32, and which of them are fill (None: none)."""
        low = [a + s for a, s in zip(start, self.start, strict=True)]
        high = [a + s for a, s in zip(stop, self.start, strict=True)]
        planes = [self._plane(z, low[1:], high[1:]) for z in range(low[0], high[0])]
        voxels = np.stack([plane for plane, _ in planes])
        if all(mask is None for _, mask in planes):
            return voxels, None
        none = np.zeros(voxels.shape[1:], np.bool_)
        return voxels, np.stack([none if mask is None else mask for _, mask in planes])

    def held(self, start: Shape, stop: Shape) -> MendedImage:
        """The same image, of whose stored chunks a box is read now and at once.

        Slice by slice, and in threads, each chunk would be unpacked for each slice again.
        """
        chunks = getattr(self.source, "chunks", None)
        if chunks is None or chunks[0] == 1:
            return self
        z, y, x = (
            slice(max(0, s + a - edge), min(n, s + b + edge))  # hot pixels are told by neighbours
            for s, a, b, n, edge in zip(
                self.start, start, stop, self.source.shape, (0, 1, 1), strict=True
            )
        )
        return replace(self, near=((z, y, x), np.asarray(self.source[z, y, x])))

    def sample(self, per_axis: int) -> FloatArray:
        """Voxels from all over the box that are no fill, about so many along each axis; 1D."""
        step = [max(1, n // per_axis) for n in self.shape]
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        defects = self.defects
        box = self.source[z0 : z1 : step[0], y0 : y1 : step[1], x0 : x1 : step[2]]
        raw = computable(box, defects.base)
        chosen = slice(z0, z1, step[0])
        gains = defects.gains[chosen][:, None, None]
        values = (raw - defects.levels[chosen][:, None, None]) / gains
        values += defects.targets[chosen][:, None, None]
        kept = np.ones(raw.shape, np.bool_) if defects.fill is None else raw != defects.fill
        return np.asarray(values[kept], np.float32)

    def plane(self, z: int) -> tuple[FloatArray, NDArray[np.bool_] | None]:
        """Read one slice, float32 (y, x), and which of its pixels are fill (None: none)."""
        return self._plane(z + self.start[0], self.start[1:], self.stop[1:])

    def _plane(
        self, z: int, low: Sequence[int], high: Sequence[int]
    ) -> tuple[FloatArray, NDArray[np.bool_] | None]:
        """Read a part of a slice, in voxels of the whole image."""
        defects = self.defects
        if z in defects.stand_ins:
            parts = [self._plane(other, low, high) for other in defects.stand_ins[z]]
            masks = [mask for _, mask in parts if mask is not None]
            mean = np.mean([part for part, _ in parts], axis=0, dtype=np.float32)
            return np.asarray(mean), np.logical_or.reduce(masks) if masks else None
        if defects.hot_above == np.inf:
            raw = computable(
                self._raw(z, slice(low[0], high[0]), slice(low[1], high[1])), defects.base
            )
            result = raw.astype(np.float32)
        else:
            # Hot pixels are told by their neighbours, beyond the box too.
            near = [
                (max(0, a - 1), min(n, b + 1))
                for a, b, n in zip(low, high, self.source.shape[1:], strict=True)
            ]
            (y0, y1), (x0, x1) = near
            wider = computable(self._raw(z, slice(y0, y1), slice(x0, x1)), defects.base)
            inner = (slice(low[0] - y0, high[0] - y0), slice(low[1] - x0, high[1] - x0))
            clamped = without_hot_pixels(wider, defects.hot_in(z))
            raw, result = wider[inner], clamped[inner]
        if defects.gains[z] != 1:
            result = (result - defects.levels[z]) / defects.gains[z] + defects.targets[z]
        if defects.fill is None:
            return result, None
        mask = raw == defects.fill
        return result, mask if mask.any() else None

    def _raw(self, z: int, y: slice, x: slice) -> NDArray[Any]:
        """Voxels of a slice of the source, from memory where they are there."""
        if self.near is not None:
            (planes, rows, columns), voxels = self.near
            if (
                planes.start <= z < planes.stop
                and rows.start <= y.start <= y.stop <= rows.stop
                and columns.start <= x.start <= x.stop <= columns.stop
            ):
                plane: NDArray[Any] = voxels[z - planes.start]
                return plane[
                    y.start - rows.start : y.stop - rows.start,
                    x.start - columns.start : x.stop - columns.start,
                ]
        return self.source[z, y, x]


def mended(image: Voxels) -> MendedImage:
    """Find an image's defects and return it without them."""
    return MendedImage(image, find_defects(image), (0, 0, 0), tuple(image.shape))


def as_it_is(image: Voxels) -> MendedImage:
    """Return an image whose voxels are taken as they are."""
    return MendedImage(image, no_defects(image), (0, 0, 0), tuple(image.shape))
