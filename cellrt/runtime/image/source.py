"""Voxels of one channel, read box by box: what all sources of them have in common.

What is read may lie in memory, or in a file as in `file_sources.py`. All of them look alike here:
(z, y, x), a dtype, chunks where there are any, and ``read(box)``.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cellrt.geometry import Box, Shape


class StoredArray(Protocol):
    """What arrays of NumPy, h5py, Zarr and Dask have in common: basic indexing reads that part."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@runtime_checkable
class VoxelSource(Protocol):
    """One channel at one time point, as (z, y, x).

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along (z, y, x).
    dtype : dtype
        Unsigned or signed integers or floats, in the byte order of the file.
    chunks : (int, int, int) or None
        Boxes in which the voxels are stored and best read; None where any box is as good.
    nbytes_resident : int
        Memory that the voxels take all the time: 0 for what stays in a file.
    """

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def chunks(self) -> Shape | None: ...

    @property
    def nbytes_resident(self) -> int: ...

    def read(self, box: Box) -> NDArray[Any]:
        """Voxels of a box, shape as the box; maybe a view, so it must not be written to."""
        ...

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        """Read ``source[z]``, ``source[z, y0:y1, x0:x1]`` or ``source[box]``, as NumPy does."""
        ...

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Slices (y, x) in order of z."""
        ...


class Unread:
    """An array that can only be read whole, which happens when its first voxels are asked for.

    Until then its shape and type can be looked at, and the run be refused.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    read : callable
        Returns the array; called once.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: DTypeLike, read: Callable[[], NDArray[Any]]
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._read: Callable[[], NDArray[Any]] | None = read
        self._array: NDArray[Any] | None = None
        self._lock = threading.Lock()

    def load(self) -> NDArray[Any]:
        """The array, read now if it was not read before."""
        with self._lock:
            if self._read is not None:
                self._array = self._read()
                self._read = None  # what it holds of the file can go
        assert self._array is not None
        return self._array

    def __getitem__(self, index: Any, /) -> Any:
        return self.load()[index]


Voxels = NDArray[Any] | VoxelSource
"""What is read slice by slice or box by box: an array (z, y, x), or a source."""


class ArraySource:
    """One channel at one time point of an array in memory or a memory map; reading is a view.

    Parameters
    ----------
    array : array
        Any order of axes.
    letters : str
        One letter per axis of the array; Z, Y and X are kept.
    channel, time : int
        Index from 0 along C and T. Axes with other letters have one voxel.
    """

    def __init__(
        self, array: StoredArray, letters: str, *, channel: int = 0, time: int = 0
    ) -> None:
        self._array = array
        self._letters = letters
        self._at = {"C": channel, "T": time}
        lengths = dict(zip(letters, array.shape, strict=True))
        z, y, x = (int(lengths.get(axis, 1)) for axis in "ZYX")
        self._shape = (z, y, x)
        stored = np.dtype(array.dtype)
        self._dtype = np.dtype(np.uint8) if stored == np.bool_ else stored

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape}, {self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the voxels: an open file cannot leave its process."""
        return ArraySource, (np.asarray(self[:]), "ZYX")

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values as stored; booleans are read as bytes 0 and 1."""
        return self._dtype

    @property
    def chunks(self) -> Shape | None:
        """Boxes in which the voxels are stored."""
        return None

    @property
    def nbytes_resident(self) -> int:
        """Memory that the voxels take; none where they are mapped from a file."""
        return 0 if is_memory_map(self._array) else self.dtype.itemsize * int(np.prod(self.shape))

    def read(self, box: Box) -> NDArray[Any]:
        """Voxels of a box (z, y, x)."""
        return self._fetch(box)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read what basic indexing of NumPy would give: integers, slices, one ellipsis."""
        box, dropped = as_box(index, self.shape)
        part = self.read(box)
        kept: NDArray[Any] = part[tuple(0 if drop else slice(None) for drop in dropped)]
        return kept

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[z] for z in range(self.shape[0]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        """Refuse: NumPy would read everything without anybody having asked for it."""
        raise TypeError("a source of voxels is no array; read a box of it, or all of it with [:]")

    def _fetch(self, box: Box) -> NDArray[Any]:
        kept = [axis for axis in self._letters if axis in "ZYX"]
        index = tuple(
            box["ZYX".index(axis)] if axis in kept else self._at.get(axis, 0)
            for axis in self._letters
        )
        part = self._get(index)
        if part.dtype == np.bool_:
            part = part.view(np.uint8)
        part = part.transpose([kept.index(axis) for axis in "ZYX" if axis in kept])
        volume: NDArray[Any] = part if "Z" in kept else part[np.newaxis][box[0]]
        return volume

    def _get(self, index: tuple[slice | int, ...]) -> NDArray[Any]:
        part: NDArray[Any] = self._array[index]
        return part


def is_memory_map(array: object) -> bool:
    """Whether an array's values lie in a file that is mapped into memory."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return isinstance(array, mmap.mmap)


def as_box(index: Any, shape: Shape) -> tuple[Box, tuple[bool, bool, bool]]:
    """Bring an index of NumPy's basic indexing to a box, and say which axes it drops.

    Raises
    ------
    IndexError
        Out of range, more than three axes, steps below 1, lists or masks.

    Examples
    --------
    >>> as_box((-1, slice(2, 9)), (4, 5, 6))
    ((slice(3, 4, 1), slice(2, 5, 1), slice(0, 6, 1)), (True, False, False))
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    if len(parts) > len(shape):
        raise IndexError(f"{len(parts)} indices for the three axes z, y, x")
    parts += [slice(None)] * (len(shape) - len(parts))
    slices, dropped = [], []
    for part, length in zip(parts, shape, strict=True):
        dropped.append(not isinstance(part, slice))
        if isinstance(part, slice):
            start, stop, step = part.indices(length)
            if step < 1:
                raise IndexError("boxes of voxels have steps of at least 1")
            slices.append(slice(start, max(start, stop), step))
            continue
        if not isinstance(part, (int, np.integer)) or isinstance(part, bool):
            raise IndexError("voxels are indexed by integers and slices only")
        if not -length <= part < length:
            raise IndexError(f"index {part} is out of range for {length} voxels")
        at = int(part) % length
        slices.append(slice(at, at + 1, 1))
    z, y, x = slices
    return (z, y, x), (dropped[0], dropped[1], dropped[2])
