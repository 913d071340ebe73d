"""Voxels that stay in their file until they are asked for: nobody after the reader holds them all.

The file is mapped into memory, or is an HDF5 file, a Zarr store or a Dask array whose values are
fetched box by box.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError, ResourceError, in_parentheses
from cellrt.geometry import Box, Shape
from cellrt.limits import means_no_memory, out_of_memory
from cellrt.runtime.image.source import ArraySource, StoredArray, Unread, VoxelSource

# Held of a chunked array so that slices one after the other do not unpack each chunk again.
SLAB_BYTES = 64_000_000
# Read at once for a box with steps, of which most voxels are then dropped.
STRIDED_BYTES = 32_000_000
# Read of a memory map before its pages are given back.
MAPPED_BYTES = 128_000_000


class MappedSource(ArraySource):
    """One channel at one time point of a memory map, of which little stays in memory.

    Pages of a file that were read count as memory of the process until the system needs them for
    something else, which limits of containers and batch systems do not wait for.
    """

    def __init__(
        self, array: np.memmap[Any, Any], letters: str, *, channel: int = 0, time: int = 0
    ) -> None:
        super().__init__(array, letters, channel=channel, time=time)
        self._map = array._mmap  # type: ignore[attr-defined]
        self._touched = 0

    def read(self, box: Box) -> NDArray[Any]:
        """Voxels of a box (z, y, x)."""
        z, y, x = _clipped(box, self.shape)
        wanted = math.prod(len(range(s.start, s.stop, s.step)) for s in (z, y, x))
        plane = max(0, y.stop - y.start) * self.shape[2]
        if not wanted or 2 * wanted > plane * max(0, z.stop - z.start):
            self._count(plane * max(0, z.stop - z.start))
            return self._fetch((z, y, x))
        # Few voxels of many pages are copied, slice by slice, so that the pages can go.
        positions = range(z.start, z.stop, z.step)
        out = np.empty(
            (len(positions), *(len(range(s.start, s.stop, s.step)) for s in (y, x))), self.dtype
        )
        for to, at in enumerate(positions):
            self._count(plane)
            out[to] = self._fetch((slice(at, at + 1, 1), y, x))[0]
        return out

    def _count(self, voxels: int) -> None:
        """Give the pages read so far back when they are many; views that are left read again."""
        self._touched += voxels * self.dtype.itemsize
        if self._touched > MAPPED_BYTES:
            self._touched = 0
            self._map.madvise(mmap.MADV_DONTNEED)


class SlabCache:
    """The slabs of slices read last, shared by the channels of one array."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slabs: OrderedDict[tuple[object, ...], NDArray[Any]] = OrderedDict()

    def get(self, key: tuple[object, ...], source: LazySource, box: Box) -> NDArray[Any]:
        """Return a slab, reading it where it is not held; two are held, the ones used last."""
        # One at a time: threads that want neighbouring slices want the same slab.
        with self._lock:
            slab = self._slabs.get(key)
            if slab is None:
                slab = source.read_directly(box)
                slab.flags.writeable = False
                self._slabs[key] = slab
            self._slabs.move_to_end(key)
            while len(self._slabs) > 2:
                self._slabs.popitem(last=False)
            return slab


class LazySource(ArraySource):
    """One channel at one time point of an array that is fetched from where it is stored.

    Slices are taken out of slabs as thick as a chunk, so that a walk along z unpacks each chunk
    once and not once a slice.

    Parameters
    ----------
    array, letters, channel, time
        As for `ArraySource`.
    chunks : tuple of int, optional
        Of the array, one length per axis.
    where : str
        Name for messages.
    slabs : SlabCache, optional
        Shared by the channels of an array.
    """

    def __init__(
        self,
        array: StoredArray,
        letters: str,
        *,
        channel: int = 0,
        time: int = 0,
        chunks: tuple[int, ...] | None = None,
        where: str = "array",
        slabs: SlabCache | None = None,
    ) -> None:
        super().__init__(array, letters, channel=channel, time=time)
        self._where = where
        self._slabs = slabs or SlabCache()
        self._chunks: Shape | None = None
        if chunks is not None:
            lengths = dict(zip(letters, chunks, strict=True))
            z, y, x = (
                max(1, min(n, lengths.get(axis, 1)))
                for n, axis in zip(self.shape, "ZYX", strict=True)
            )
            self._chunks = (z, y, x)
        self._plane_bytes = self.dtype.itemsize * self.shape[1] * self.shape[2]
        depth = self._chunks[0] if self._chunks else 1
        self._slab_depth = max(1, min(depth, SLAB_BYTES // max(1, self._plane_bytes)))

    @property
    def chunks(self) -> Shape | None:
        """Boxes in which the voxels are stored."""
        return self._chunks

    @property
    def nbytes_resident(self) -> int:
        """Nothing: values are fetched when they are asked for."""
        return 0

    def read(self, box: Box) -> NDArray[Any]:
        """Voxels of a box (z, y, x), with steps where the slices have them."""
        z, y, x = _clipped(box, self.shape)
        if any(part.step != 1 for part in (z, y, x)):
            return self._read_with_steps((z, y, x))
        if any(part.stop <= part.start for part in (z, y, x)):
            return np.empty([len(range(s.start, s.stop)) for s in (z, y, x)], self.dtype)
        thin = z.stop - z.start < self._slab_depth
        if thin and (y.stop - y.start) * (x.stop - x.start) * 2 > self.shape[1] * self.shape[2]:
            return self._read_from_slabs(z, y, x)
        return self.read_directly((z, y, x))

    def read_directly(self, box: Box) -> NDArray[Any]:
        """Voxels of a box without steps, past the slabs that are held."""
        return self._fetch(box)

    def _read_from_slabs(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        parts = []
        begin = z.start
        while begin < z.stop:
            # Slabs end where chunks do, so that no chunk is unpacked for two of them.
            depth = self._chunks[0] if self._chunks else 1
            chunk = begin - begin % depth
            start = begin - (begin - chunk) % self._slab_depth
            stop = min(start + self._slab_depth, chunk + depth, self.shape[0])
            whole = (slice(start, stop), slice(0, self.shape[1]), slice(0, self.shape[2]))
            slab = self._slabs.get((*self._at.values(), start), self, whole)
            parts.append(slab[begin - start : min(z.stop, stop) - start, y, x])
            begin = stop
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_with_steps(self, box: Box) -> NDArray[Any]:
        """Read chunks whole and drop voxels afterwards: files are slow at picking single ones."""
        out = np.empty([len(range(s.start, s.stop, s.step)) for s in box], self.dtype)
        pieces = [_pieces(s, extent) for s, extent in zip(box, self._extents(), strict=True)]
        for z, to_z in pieces[0]:
            for y, to_y in pieces[1]:
                for x, to_x in pieces[2]:
                    block = self.read((z, y, x))
                    out[to_z, to_y, to_x] = block[:: box[0].step, :: box[1].step, :: box[2].step]
        return out

    def _extents(self) -> Shape:
        """A box of whole chunks, of `STRIDED_BYTES` where chunks are smaller than that."""
        depth, height, width = self._chunks or (1, 1, self.shape[2])
        row = max(1, self.dtype.itemsize * depth * height)
        width = min(self.shape[2], max(1, STRIDED_BYTES // (row * width)) * width)
        plane = max(1, self.dtype.itemsize * depth * width)
        height = min(self.shape[1], max(1, STRIDED_BYTES // (plane * height)) * height)
        return depth, max(1, height), max(1, width)

    def _get(self, index: tuple[slice | int, ...]) -> NDArray[Any]:
        return read_stored(self._array, index, self._where)


def read_stored(array: StoredArray, index: Any, where: str) -> NDArray[Any]:
    """Fetch a part of an array that is stored in a file.

    Raises
    ------
    InputError
        That part is damaged, or packed in a way that the library cannot unpack.
    """
    try:
        part: NDArray[Any] = np.asarray(array[index])
    # What HDF5 and codecs raise on damage; the statement above holds nothing of ours.
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if means_no_memory(error):
            raise ResourceError(out_of_memory()) from error
        raise InputError(
            f"{where}: voxels cannot be read{in_parentheses(str(error))}: the file is damaged, "
            "or packed in a way that needs a further package; copy or save it again"
        ) from error
    return part


def make_source(
    array: StoredArray,
    letters: str,
    *,
    channel: int = 0,
    time: int = 0,
    chunks: tuple[int, ...] | None = None,
    where: str = "array",
    slabs: SlabCache | None = None,
) -> VoxelSource:
    """Choose the source that fits how an array is stored; parameters as for `LazySource`."""
    # Only of a map that nobody can write to: pages of others may hold what is in no file.
    if isinstance(array, np.memmap) and array.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        return MappedSource(array, letters, channel=channel, time=time)
    if isinstance(array, (np.ndarray, Unread)):
        return ArraySource(array, letters, channel=channel, time=time)
    return LazySource(
        array, letters, channel=channel, time=time, chunks=chunks, where=where, slabs=slabs
    )


def _clipped(box: Box, shape: Shape) -> Box:
    z, y, x = (slice(*part.indices(n)) for part, n in zip(box, shape, strict=True))
    return z, y, x


def _pieces(part: slice, extent: int) -> list[tuple[slice, slice]]:
    """Cut a slice with a step at multiples of ``extent``: what to read, and where it goes."""
    found = []
    first = 0
    positions = range(part.start, part.stop, part.step)
    while first < len(positions):
        end = (positions[first] // extent + 1) * extent
        count = min(len(positions) - first, -(-(end - positions[first]) // part.step))
        last = positions[first + count - 1]
        found.append((slice(positions[first], last + 1, 1), slice(first, first + count)))
        first += count
    return found
