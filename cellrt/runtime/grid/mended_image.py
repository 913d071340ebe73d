"""An image as it is read for the network: without the defects that were found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

    Attributes
    ----------
    resampled : dict
        Of a small image of one slice, what `resample_mended` made of it, by shape: it is asked for
        when brightness is measured, and again when the network looks.
    """

    source: Voxels
    defects: Defects
    start: Shape
    stop: Shape
    near: tuple[Box, NDArray[Any]] | None = None
    resampled: dict[Shape, tuple[FloatArray, NDArray[np.bool_] | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what can be made again."""
        return {**self.__dict__, "resampled": {}}

    @property
    def shape(self) -> Shape:
        """Shape (z, y, x) of the box."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def box(self) -> Box:
        """Where it lies in the whole image."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
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
        return self._planes(range(low[0], high[0]), low[1:], high[1:])

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
        z += self.start[0]
        voxels, fill = self._planes(range(z, z + 1), self.start[1:], self.stop[1:])
        return voxels[0], None if fill is None else fill[0]

    def _planes(
        self, planes: range, low: Sequence[int], high: Sequence[int]
    ) -> tuple[FloatArray, NDArray[np.bool_] | None]:
        """Read a part of some slices at once, in voxels of the whole image."""
        defects, chosen = self.defects, slice(planes.start, planes.stop)
        if defects.hot_above == np.inf:
            raw = computable(
                self._raw(planes, slice(low[0], high[0]), slice(low[1], high[1])), defects.base
            )
            result = raw.astype(np.float32)
        else:
            # Hot pixels are told by their neighbours, beyond the box too.
            near = [
                (max(0, a - 1), min(n, b + 1))
                for a, b, n in zip(low, high, self.source.shape[1:], strict=True)
            ]
            (y0, y1), (x0, x1) = near
            wider = computable(self._raw(planes, slice(y0, y1), slice(x0, x1)), defects.base)
            inner = (slice(low[0] - y0, high[0] - y0), slice(low[1] - x0, high[1] - x0))
            result = without_hot_pixels(wider, [defects.hot_in(z) for z in planes], inner)
            raw = wider[:, inner[0], inner[1]]
        for k in np.flatnonzero(defects.gains[chosen] != 1).tolist():
            z = planes[k]
            result[k] = (result[k] - defects.levels[z]) / defects.gains[z] + defects.targets[z]
        fill = None if defects.fill is None else np.asarray(raw == defects.fill)
        for k, z in enumerate(planes):
            if z in defects.stand_ins:
                others = [
                    self._planes(range(other, other + 1), low, high)
                    for other in defects.stand_ins[z]
                ]
                result[k] = np.mean([other[0] for other, _ in others], axis=0, dtype=np.float32)
                if fill is not None:
                    fill[k] = np.any([mask[0] for _, mask in others if mask is not None], axis=0)
        return result, fill if fill is not None and fill.any() else None

    def _raw(self, planes: range, y: slice, x: slice) -> NDArray[Any]:
        """Voxels of slices of the source, from memory where they are there."""
        if self.near is not None:
            (held, rows, columns), voxels = self.near
            if (
                held.start <= planes.start < planes.stop <= held.stop
                and rows.start <= y.start <= y.stop <= rows.stop
                and columns.start <= x.start <= x.stop <= columns.stop
            ):
                return voxels[
                    planes.start - held.start : planes.stop - held.start,
                    y.start - rows.start : y.stop - rows.start,
                    x.start - columns.start : x.stop - columns.start,
                ]
        return np.asarray(self.source[planes.start : planes.stop, y, x])


def mended(image: Voxels) -> MendedImage:
    """Find an image's defects and return it without them."""
    return MendedImage(image, find_defects(image), (0, 0, 0), tuple(image.shape))


def as_it_is(image: Voxels) -> MendedImage:
    """Return an image whose voxels are taken as they are."""
    return MendedImage(image, no_defects(image), (0, 0, 0), tuple(image.shape))
