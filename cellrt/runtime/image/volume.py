"""An image stack in memory or on disk, with what is known about it and how it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.runtime.image.axes import resolve_axes, to_czyx

PartialVoxelSize = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Provenance:
    """Where a piece of metadata comes from.

    Attributes
    ----------
    origin : {"file", "user", "assumed", "unknown"}
    text : str
        Which metadata it was, in words for a user.
    """

    origin: str
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


@dataclass(frozen=True, eq=False)
class Volume:
    """One image stack, all its channels, one time point.

    Attributes
    ----------
    data : ndarray, shape (c, z, y, x)
        Voxels in the file's own dtype and byte order. A memory map where the file allows it: take
        blocks out of it with ``np.asarray(block, dtype=...)`` before computing.
    file_axes : str
        Axes of the file in its own order, such as ``"ZCYX"``.
    voxel_size_um : (z, y, x) in µm, or None
        A component is None where only the others are known; None where nothing is known.
    segmented_channel : int
        Index (from 0) into ``data`` of the channel to segment.
    channel_names : tuple of str
    axes_source, voxel_size_source, channel_source : Provenance
    path : Path or None
        The file, None for an array.
    """

    data: NDArray[np.generic]
    file_axes: str
    voxel_size_um: PartialVoxelSize | None
    segmented_channel: int
    channel_names: tuple[str, ...]
    axes_source: Provenance
    voxel_size_source: Provenance
    channel_source: Provenance
    path: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (z, y, x)."""
        _, z, y, x = self.data.shape
        return z, y, x

    @property
    def is_2d(self) -> bool:
        """Whether there is one slice only."""
        return self.shape[0] == 1

    @property
    def image(self) -> NDArray[np.generic]:
        """The channel to segment, shape (z, y, x), a view."""
        view: NDArray[np.generic] = self.data[self.segmented_channel]
        return view

    @property
    def full_voxel_size_um(self) -> tuple[float, float, float] | None:
        """Voxel size (z, y, x) in µm when every component that matters is known, else None.

        For one slice z does not matter; a missing z is then returned as the y size.
        """
        if self.voxel_size_um is None:
            return None
        z, y, x = self.voxel_size_um
        if y is None or x is None or (z is None and not self.is_2d):
            return None
        return (y if z is None else z), y, x

    def channel(self, channel: int | str) -> NDArray[np.generic]:
        """One channel by number, counted from 1 as ImageJ does, or by name; shape (z, y, x)."""
        index = find_channel(channel, self.channel_names, str(self.path or "array"))
        view: NDArray[np.generic] = self.data[index]
        return view


def volume_from_array(
    array: NDArray[np.generic],
    *,
    axes: str | None = None,
    voxel_size_um: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
) -> Volume:
    """Describe an array as a `Volume`, without copying it.

    Parameters
    ----------
    array : ndarray, 2 to 5 dimensions, any real dtype
    axes : str, optional
        One letter per dimension out of T, C, Z, Y, X. Without it, two dimensions are (y, x), three
        are (z, y, x), and more are refused.
    voxel_size_um : sequence of 3 floats, optional
        (z, y, x) in µm.
    channel : int or str, optional
        Channel to segment, counted from 1; needed when there are several.
    time : int, optional
        Time point, counted from 1; needed when there are several.

    Raises
    ------
    InputError
        Wrong number of dimensions, ambiguous axes, no channel chosen, bad voxel size, empty or
        complex arrays, NaN or infinite voxels in the channel to segment.
    """
    array = np.asanyarray(array)
    where = "array"
    if axes is None and array.ndim in (2, 3):
        letters = "YX" if array.ndim == 2 else "ZYX"
        axes_source = Provenance("assumed", f"an array of {array.ndim} dimensions is {letters}")
    else:
        if not 2 <= array.ndim <= 5:
            raise InputError(dimensions_message(where, array.shape))
        resolved = resolve_axes(array.shape, "Q" * array.ndim, "", axes, where)
        letters, axes_source = resolved.letters, Provenance(resolved.origin, resolved.text)
    size, size_source = None, Provenance("unknown", "none given with the array")
    if voxel_size_um is not None:
        size = check_voxel_size(voxel_size_um)
        size_source = Provenance("user", "given by the user")
    return assemble(
        array,
        letters=letters,
        axes_source=axes_source,
        voxel_size_um=size,
        voxel_size_source=size_source,
        channel_names=None,
        channel=channel,
        time=time,
        path=None,
    )


def assemble(
    array: NDArray[np.generic],
    *,
    letters: str,
    axes_source: Provenance,
    voxel_size_um: PartialVoxelSize | None,
    voxel_size_source: Provenance,
    channel_names: Sequence[str] | None,
    channel: int | str | None,
    time: int | None,
    path: Path | None,
) -> Volume:
    """Check an array whose axes are known and make it a `Volume`; used by every reader."""
    where = "array" if path is None else path.name
    if array.size == 0:
        raise InputError(f"{where}: holds no voxels (shape {array.shape}); expected an image")
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif":
        kind = "complex numbers" if array.dtype.kind == "c" else f"{array.dtype} values"
        raise InputError(
            f"{where}: holds {kind}; expected grey values (integers or floats), "
            "for example the magnitude of a complex image"
        )
    times = array.shape[letters.index("T")] if "T" in letters else 1
    hint = "" if "Z" in letters else "; if they are slices, say so with --axes"
    if times > 1 and time is None:
        raise InputError(
            f"{where}: has {times} time points; choose one with --time 1 to --time {times}{hint}"
        )
    if time is not None and not 1 <= time <= times:
        raise InputError(f"{where}: has no time point {time}; there are {times}, counted from 1")
    data = to_czyx(array, letters, None if time is None else time - 1)
    count = data.shape[0]
    if not channel_names or len(channel_names) != count:
        channel_names = tuple(f"channel {i + 1}" for i in range(count))
    index, channel_source = _choose_channel(channel, tuple(channel_names), where, letters)
    _refuse_nonfinite(data[index], where, None if count == 1 else channel_names[index])
    return Volume(
        data=data,
        file_axes=letters,
        voxel_size_um=voxel_size_um,
        segmented_channel=index,
        channel_names=tuple(channel_names),
        axes_source=axes_source,
        voxel_size_source=voxel_size_source,
        channel_source=channel_source,
        path=path,
    )


def check_voxel_size(voxel_size_um: Sequence[float]) -> tuple[float, float, float]:
    """Three positive, finite numbers, or an `InputError`."""
    values = tuple(float(v) for v in voxel_size_um)
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise InputError(
            f"voxel size {' '.join(f'{v:g}' for v in values)} is not possible; "
            "expected three numbers above 0, z y x in µm"
        )
    return values[0], values[1], values[2]


def find_channel(channel: int | str, names: Sequence[str], where: str) -> int:
    """Index from 0 of a channel given by its number from 1 or its name."""
    if isinstance(channel, str):
        if channel in names:
            return list(names).index(channel)
        matching = [i for i, name in enumerate(names) if name.lower() == channel.strip().lower()]
        if len(matching) == 1:
            return matching[0]
    try:
        number = int(channel)
    except ValueError:
        number = 0
    if not 1 <= number <= len(names):
        raise InputError(
            f"{where}: has no channel {channel!r}; there are {len(names)}, counted from 1: "
            f"{_list_channels(names)}"
        )
    return number - 1


def dimensions_message(where: str, shape: tuple[int, ...]) -> str:
    """Text of the error for an array that is no image."""
    return (
        f"{where}: has {len(shape)} dimensions {shape}; expected an image (y, x), a stack "
        "(z, y, x), or one with channels or time, its axes named with --axes"
    )


def _choose_channel(
    channel: int | str | None, names: tuple[str, ...], where: str, letters: str
) -> tuple[int, Provenance]:
    if channel is not None:
        index = find_channel(channel, names, where)
        return index, Provenance("user", f"{names[index]!r} chosen by the user")
    if len(names) == 1:
        return 0, Provenance("file", "the only channel")
    hint = "" if "Z" in letters else "; if they are slices, say so with --axes"
    raise InputError(
        f"{where}: has {len(names)} channels ({_list_channels(names)}); "
        f"choose the one to segment with --channel 1 to --channel {len(names)}{hint}"
    )


def _list_channels(names: Sequence[str], most: int = 6) -> str:
    shown = [f"{i + 1} = {name}" for i, name in enumerate(names[:most])]
    return ", ".join(shown) + (", ..." if len(names) > most else "")


def _refuse_nonfinite(image: NDArray[np.generic], where: str, channel_name: str | None) -> None:
    if image.dtype.kind != "f":
        return
    bad = sum(int(np.count_nonzero(~np.isfinite(np.asarray(plane)))) for plane in image)
    if bad:
        of_channel = "" if channel_name is None else f" of {channel_name}"
        raise InputError(
            f"{where}: {bad} of {image.size} voxels{of_channel} are NaN or infinite; "
            "replace them, for example by 0, and save the image again"
        )
