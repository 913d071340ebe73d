"""An image stack in memory or on disk, with what is known about it and how it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cellrt.errors import InputError
from cellrt.runtime.image.axes import Axes, contradicted, example_axes, resolve_axes
from cellrt.runtime.image.choices import (
    choose_channel,
    find_channel,
    refuse_no_number,
    taken_by_number,
)
from cellrt.runtime.image.colours import COLOURS, LUMINANCE, Luminance, is_colour
from cellrt.runtime.image.file_sources import SlabCache, make_source
from cellrt.runtime.image.source import StoredArray, Unread, VoxelSource
from cellrt.runtime.image.stored import Provenance, StatedSize, Stored, refuse_no_numbers
from cellrt.runtime.image.voxel_size import (
    PartialVoxelSize,
    believed_size,
    check_voxel_size,
    doubts_about,
)
from cellrt.wording import counted

# The largest grey value of an image, so that its square is a number in single precision, too.
_SMALLEST_GREY, _LARGEST_GREY = 1e-18, 1e18


@dataclass(frozen=True, eq=False)
class Volume:
    """One image stack, all its channels, one time point.

    Attributes
    ----------
    channels : tuple of VoxelSource, each of shape (z, y, x)
        Voxels in the file's own dtype and byte order, read box by box from where they lie. Of a
        colour image the last one is the luminance, which the file does not hold.
    file_axes : str
        Axes of the file in its own order, such as ``"ZCYX"``.
    voxel_size_um : (z, y, x) in µm, or None
        A component is None where only the others are known; None where nothing is known.
    segmented_channel : int
        Index (from 0) into ``channels`` of the one to segment.
    channel_names : tuple of str
    axes_source, voxel_size_source, channel_source : Provenance
    path : Path or None
        The file, None for an array.
    inside : str
        Name of the array in the file, for files that hold several.
    time, times : int
        The time point, counted from 1, and how many there are.
    holds_labels : bool
        Whether the file is one of labels that cellrt wrote.
    warnings : tuple of str
        What a user should know about how the file was read.
    """

    channels: tuple[VoxelSource, ...]
    file_axes: str
    voxel_size_um: PartialVoxelSize | None
    segmented_channel: int
    channel_names: tuple[str, ...]
    axes_source: Provenance
    voxel_size_source: Provenance
    channel_source: Provenance
    path: Path | None = None
    inside: str = ""
    time: int = 1
    times: int = 1
    holds_labels: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def image(self) -> VoxelSource:
        """The channel to segment, shape (z, y, x)."""
        return self.channels[self.segmented_channel]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (z, y, x)."""
        return self.image.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels, the same in all channels."""
        return self.image.dtype

    @property
    def nbytes(self) -> int:
        """Size of all channels' voxels, wherever they lie."""
        return len(self.channels) * math.prod(self.shape) * self.dtype.itemsize

    @property
    def nbytes_resident(self) -> int:
        """Memory that the voxels take: nothing for what is read from a file as it is needed."""
        return sum(channel.nbytes_resident for channel in self.channels)

    @property
    def is_2d(self) -> bool:
        """Whether there is one slice only."""
        return self.shape[0] == 1

    @property
    def address(self) -> str | None:
        """The file, with the name of the array inside where there is one; None for an array."""
        if self.path is None:
            return None
        return f"{self.path}:{self.inside}" if self.inside else str(self.path)

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

    @property
    def pixel_size_um(self) -> tuple[float, float, float] | None:
        """Size of a slice's pixels, where z does not matter, as `full_voxel_size_um`."""
        _, y, x = self.voxel_size_um or (None, None, None)
        return None if y is None or x is None else (y, y, x)

    def channel(self, channel: int | str) -> VoxelSource:
        """One channel by number, counted from 1 as ImageJ does, or by name; shape (z, y, x)."""
        index = find_channel(channel, self.channel_names, self.address or "array")
        return self.channels[index]


def volume_from_array(
    array: ArrayLike | StoredArray,
    *,
    axes: str | None = None,
    voxel_size_um: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
) -> Volume:
    """Describe an array as a `Volume`, without copying it.

    Parameters
    ----------
    array : array, 2 to 5 dimensions, any real dtype
        Of NumPy, or anything with a shape and a dtype that is indexed like one, such as an HDF5
        dataset, a Zarr or a Dask array: it is then read box by box.
    axes : str, optional
        One letter per dimension out of T, C, Z, Y, X. Without it, two dimensions are (y, x), three
        are (z, y, x), and more are refused.
    voxel_size_um : sequence of 3 floats, optional
        (z, y, x) in µm.
    channel : int or str, optional
        Channel to segment, counted from 1, or its name; needed when there are several.
    time : int, optional
        Time point, counted from 1; needed when there are several.

    Raises
    ------
    InputError
        Wrong number of dimensions, ambiguous axes, no channel chosen, empty or complex arrays, NaN
        or infinite voxels in the channel to segment, masked ones.
    UsageError
        Numbers that are none, such as a voxel size of 0.
    """
    _refuse_mask(array)
    size = StatedSize(reason="none given with the array")
    if _reads_when_indexed(array):
        stored = Stored(array, size=size, chunks=_chunks_of(array))  # type: ignore[arg-type]
    else:
        stored = Stored(np.asanyarray(array), size=size)
    volume = describe(stored, axes=axes, voxel_size_um=voxel_size_um, channel=channel, time=time)
    read_voxels(volume, stored)
    return volume


def describe(
    stored: Stored,
    *,
    axes: str | None = None,
    voxel_size_um: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    path: Path | None = None,
    inside: str = "",
) -> Volume:
    """Decide what an array's axes, channels and voxel size are and make it a `Volume`, or refuse.

    Used by every reader; parameters as for `volume_from_array`, with the file in ``path`` and the
    name of the array in it. No voxel is read: `read_voxels` comes next.

    Raises
    ------
    InputError, UsageError
        As `volume_from_array`, but for what voxels are.
    """
    where = "array" if path is None else path.name
    refuse_no_number("channel", channel, or_name=True)
    refuse_no_number("time", time)
    user_size = None if voxel_size_um is None else check_voxel_size(voxel_size_um)
    array = stored.array
    shape = tuple(int(n) for n in array.shape)
    resolved = _resolve(stored, shape, axes, where)
    letters = resolved.letters
    _refuse_non_grey(np.dtype(array.dtype), shape, where)
    lengths = dict(zip(letters, shape, strict=True))
    times, count = lengths.get("T", 1), lengths.get("C", 1)
    warnings = list(stored.warnings)
    if resolved.origin == "user" and stored.axes is not None:
        warnings += contradicted(stored.axes, stored.axes_text, letters)
    if user_size is None:
        size, size_source = believed_size(stored.size, where, lengths.get("Z", 1))
    else:
        size, size_source = user_size, Provenance("user", "given by the user")
        warnings += doubts_about(user_size, stored.size, lengths.get("Z", 1))
    hint = "" if "Z" in letters else "; if they are slices, say so with --axes"
    if times > 1 and time is None:
        raise InputError(
            f"{where}: has {times} time points; choose one with --time 1 to --time {times}{hint}"
        )
    if time is not None and not 1 <= time <= times:
        raise InputError(f"{where}: has no time point {time}; there are {times}, counted from 1")
    names = tuple(stored.channel_names or ())
    if len(names) != count:
        names = tuple(f"channel {i + 1}" for i in range(count))
    coloured = is_colour(stored.axes, names)
    if coloured:
        names = (*names, LUMINANCE)
    if stored.equal_colours and channel is not None and count == 1:
        # An empty picture among coloured ones: whichever colour was meant, it is this one.
        find_channel(channel, (*COLOURS, LUMINANCE), where)
        channel = None
    index, channel_source = choose_channel(channel, names, where, letters)
    if isinstance(channel, str):
        warnings += taken_by_number("channel", channel, index, names)
    slabs = SlabCache()
    channels = tuple(
        make_source(
            array,
            letters,
            channel=i,
            time=(time or 1) - 1,
            chunks=stored.chunks,
            where=where,
            slabs=slabs,
        )
        for i in range(count)
    )
    if coloured:
        channels = (*channels, make_source(Luminance(channels[:3]), "ZYX", where=where))
    return Volume(
        channels=channels,
        file_axes=letters,
        voxel_size_um=size,
        segmented_channel=index,
        channel_names=names,
        axes_source=Provenance(resolved.origin, resolved.text),
        voxel_size_source=size_source,
        channel_source=channel_source,
        path=path,
        inside=inside,
        time=time or 1,
        times=times,
        holds_labels=stored.holds_labels,
        warnings=tuple(warnings),
    )


def read_voxels(volume: Volume, stored: Stored) -> None:
    """Read what can only be read whole, and look whether the voxels can be computed with.

    Raises
    ------
    InputError
        NaN or infinite voxels in the channel to segment, or a file that is damaged there.
    """
    if isinstance(stored.array, Unread):
        stored.array.load()
    several = len(volume.channels) > 1
    _refuse_incomputable(
        volume.image,
        "array" if volume.path is None else volume.path.name,
        volume.channel_names[volume.segmented_channel] if several else None,
    )


def _dimensions_message(where: str, shape: tuple[int, ...]) -> str:
    """Text of the error for an array that is no image."""
    return (
        f"{where}: has {counted(len(shape), 'dimension')} {shape}; expected an image (y, x), "
        "a stack (z, y, x), or one with channels or time, its axes named with --axes"
    )


def _resolve(stored: Stored, shape: tuple[int, ...], axes: str | None, where: str) -> Axes:
    """Which axis is which: said by the user or the file, or the convention for arrays."""
    if len(shape) < 2 or (stored.axes is None and len(shape) > 5):
        raise InputError(_dimensions_message(where, shape))
    if stored.axes is not None:
        return resolve_axes(shape, stored.axes, stored.axes_text, axes, where)
    if axes is None and len(shape) in (2, 3):
        letters = example_axes(shape)
        return Axes(letters, "assumed", f"an array of {len(shape)} dimensions is {letters}")
    return resolve_axes(shape, "Q" * len(shape), "", axes, where)


def _refuse_non_grey(dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    if 0 in shape:
        raise InputError(f"{where}: holds no voxels (shape {shape}); expected an image")
    refuse_no_numbers(dtype, where)
    if dtype.kind == "c":
        raise InputError(
            f"{where}: holds complex numbers; expected grey values (integers or floats), for "
            "example their magnitude"
        )


def _refuse_incomputable(image: VoxelSource, where: str, channel_name: str | None) -> None:
    """Read the whole channel, slice by slice: one NaN would spread over the image's range."""
    if image.dtype.kind != "f":
        return
    of_channel = "" if channel_name is None else f" of {channel_name}"
    bad, largest = 0, 0.0
    for plane in image:
        low, high = float(plane.min()), float(plane.max())
        if math.isfinite(low) and math.isfinite(high):
            largest = max(largest, abs(low), abs(high))
        else:
            bad += int(np.count_nonzero(~np.isfinite(plane)))
    if bad:
        raise InputError(
            f"{where}: {bad} of {counted(math.prod(image.shape), 'voxel')}{of_channel} "
            f"{'is' if bad == 1 else 'are'} NaN or infinite; "
            "replace them, for example by 0, and save the image again"
        )
    if largest and not _SMALLEST_GREY <= largest <= _LARGEST_GREY:
        raise InputError(
            f"{where}: the grey values{of_channel} reach {largest:.3g}, and only "
            f"{_SMALLEST_GREY:g} to {_LARGEST_GREY:g} can be computed with in single precision; "
            "scale them, for example to a largest value of 1000, and save the image again"
        )


def _refuse_mask(array: object) -> None:
    """Refuse an array of which NumPy hides some voxels: nothing else here would leave them out."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        masked = int(np.count_nonzero(np.ma.getmaskarray(array)))
        raise InputError(
            f"array: {masked} of {counted(array.size, 'voxel')} {'is' if masked == 1 else 'are'} "
            "masked, which would be ignored; give array.filled(0), as zeros that reach the border "
            "are taken for no image, or cut the part out"
        )


def _reads_when_indexed(array: object) -> bool:
    """Whether this is an array of another kind than NumPy's that can be read part by part."""
    if isinstance(array, np.ndarray) or not hasattr(array, "__getitem__"):
        return False
    try:
        np.dtype(getattr(array, "dtype", "no type"))
        return all(int(n) >= 0 for n in array.shape)  # type: ignore[attr-defined]
    except (TypeError, ValueError, AttributeError):
        return False


def _chunks_of(array: object) -> tuple[int, ...] | None:
    """Chunks of an HDF5, Zarr or Dask array; Dask says the length of each, the first counts."""
    chunks = getattr(array, "chunks", None)
    if not isinstance(chunks, tuple):
        return None
    return tuple(int(n[0] if isinstance(n, tuple) else n) for n in chunks)
