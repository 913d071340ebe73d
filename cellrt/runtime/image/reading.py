"""Files and arrays become a `Volume`, or an array of labels, or are refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError, UsageError
from cellrt.runtime.image.choices import refuse_no_number
from cellrt.runtime.image.file_sources import read_stored
from cellrt.runtime.image.formats import locate, memory_for
from cellrt.runtime.image.source import StoredArray, Unread
from cellrt.runtime.image.volume import Volume, describe, read_voxels, volume_from_array
from cellrt.runtime.image.voxel_size import check_voxel_size

Source = str | os.PathLike[str] | NDArray[np.generic] | Volume


def read(
    source: Source,
    *,
    voxel_size: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    series: int | str | None = None,
    axes: str | None = None,
    before_voxels: Callable[[Volume], None] | None = None,
) -> Volume:
    """Read a file, or describe an array, as a `Volume`.

    Parameters are those of :func:`cellrt.segment`, and ``before_voxels`` that of `read_volume`.

    Raises
    ------
    UsageError
        A choice that has been made for a volume already, or that an array does not offer.
    InputError
        As `read_volume`, or the file holds labels that cellrt wrote.
    """

    def look(volume: Volume) -> None:
        if volume.holds_labels:
            raise InputError(
                f"{volume.address} holds labels that cellrt wrote, no image; give the image that "
                "they were made from, or save them anew with another program to segment them"
            )
        if before_voxels is not None:
            before_voxels(volume)

    if isinstance(source, Volume):
        known = {"voxel_size": voxel_size, "channel": channel, "time": time, "series": series}
        refuse_known({**known, "axes": axes}, "a volume")
        look(source)
        return source
    if isinstance(source, (str, os.PathLike)):
        return read_volume(
            source,
            axes=axes,
            voxel_size_um=voxel_size,
            channel=channel,
            time=time,
            series=series,
            before_voxels=look,
        )
    refuse_known({"series": series}, "an array")
    return volume_from_array(
        source, axes=axes, voxel_size_um=voxel_size, channel=channel, time=time
    )


class _EnoughError(Exception):
    """Ends a reading where enough is known."""


def glance(source: Source, **known: Any) -> Volume:
    """An image without its voxels, which stay unread; parameters and errors as for `read`."""
    seen: list[Volume] = []

    def look(volume: Volume) -> None:
        seen.append(volume)
        raise _EnoughError

    with suppress(_EnoughError):
        read(source, before_voxels=look, **known)
    return seen[0] if seen else read(source, **known)  # an array has no voxels to read


def is_2d(source: Source, **known: Any) -> bool:
    """Whether an image has one slice, without reading its voxels; parameters as for `read`."""
    return glance(source, **known).is_2d


def read_volume(
    address: str | os.PathLike[str],
    *,
    axes: str | None = None,
    voxel_size_um: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    series: int | str | None = None,
    before_voxels: Callable[[Volume], None] | None = None,
) -> Volume:
    """Describe one time point of a file, all channels; voxels stay in the file where they can.

    Axes, voxel size and channels come from the file's metadata unless given here. What the file
    does not say stays unknown, and the provenance of each says where it came from.

    Parameters
    ----------
    address : str or path
        TIFF, BigTIFF, ImageJ hyperstack or OME-TIFF (plain pages, tiled, compressed or pyramidal,
        of which the full resolution is read), ``stack.npy``, ``stack.npz:array``,
        ``stack.h5:dataset``, ``store.zarr:array``, or a format of `register_format`.
    axes : str, optional
        One letter per dimension of the file out of T, C, Z, Y, X, such as ``"ZCYX"``.
    voxel_size_um : sequence of 3 floats, optional
        (z, y, x) in µm.
    channel : int or str, optional
        Channel to segment by number, counted from 1 as ImageJ does, or by name; needed when the
        file holds several.
    time : int, optional
        Time point, counted from 1; needed when the file holds several.
    series : int or str, optional
        Image or array to read where the file holds several: what the address says after the colon.
    before_voxels : callable, optional
        Called with the volume when all but its voxels is known; what it raises ends the reading
        before a large file is read.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        Missing, truncated or damaged file, one of no known format, ambiguous axes, several
        channels or time points with none chosen, impossible voxel size, NaN or infinite voxels in
        the channel to segment, empty or complex images, a package that is not installed.
    UsageError
        No address, one that names another array than ``series``, or a format that holds one.
    ResourceError
        Not enough memory for a file that has to be read whole.
    """
    if voxel_size_um is not None:
        check_voxel_size(voxel_size_um)
    refuse_no_number("series", series, or_name=True)
    path, inside, file_format = locate(address)
    if series is not None:
        inside = _agreed(inside, str(series), path)
    if inside and not file_format.holds_several:
        raise UsageError(
            f"{path.name} is {file_format.name} and holds one image, not also {inside!r}; leave "
            "the series out"
        )
    stored = file_format.read(path, inside)
    with memory_for(path):
        volume = describe(
            stored,
            axes=axes,
            voxel_size_um=voxel_size_um,
            channel=channel,
            time=time,
            path=path,
            inside=inside,
        )
    if before_voxels is not None:
        before_voxels(volume)  # what goes wrong there is none of the file's
    with memory_for(path):
        read_voxels(volume, stored)
    return volume


def read_array(address: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a whole array as it is stored, for those who know what its axes are.

    Whole, because training keeps its stacks in memory and scores compare all voxels of two label
    images.

    Parameters
    ----------
    address : str or path
        As for `read_volume`.

    Returns
    -------
    ndarray
        The stored values in their stored type and shape; memory-mapped where the file allows it.

    Raises
    ------
    InputError, ResourceError
        As `read_volume`, without what concerns the meaning of axes.
    """
    return read_array_with_axes(address)[0]


def read_array_with_axes(address: str | os.PathLike[str]) -> tuple[NDArray[Any], str]:
    """As `read_array`, with the axes that the file names, one letter each; empty without."""
    path, inside, file_format = locate(address)
    stored = file_format.read(path, inside)
    return _whole(stored.array, path), stored.axes or ""


def _whole(array: StoredArray, path: Path) -> NDArray[Any]:
    if isinstance(array, Unread):
        with memory_for(path):
            return array.load()
    if isinstance(array, np.ndarray):
        return array
    return read_stored(array, ..., path.name)


def read_labels(
    address: str | os.PathLike[str],
    *,
    axes: str | None = None,
    voxel_size_um: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    before_voxels: Callable[[Volume], None] | None = None,
) -> tuple[NDArray[np.integer[Any]], Volume]:
    """Read a label image whole, with what its file says about it.

    Parameters are those of `read_volume`.

    Returns
    -------
    labels : ndarray of int, shape (z, y, x)
        0 is background.
    volume : Volume

    Raises
    ------
    InputError, ResourceError
        As `read_volume`, or values that are no labels: negative or no whole numbers.
    """
    volume = read_volume(
        address,
        axes=axes,
        voxel_size_um=voxel_size_um,
        channel=channel,
        time=time,
        before_voxels=before_voxels,
    )
    path = volume.path
    assert path is not None
    with memory_for(path):
        labels = np.asarray(volume.image[:])
        if labels.dtype.kind == "f":
            whole = labels.astype(np.int64)
            if not np.array_equal(whole, labels):
                raise InputError(
                    f"{path.name} holds numbers that are not whole; expected labels: 0 for "
                    "background and one number for each cell"
                )
            labels = whole
    lowest = int(labels.min(initial=0))
    if lowest < 0:
        raise InputError(
            f"{path.name} holds the label {lowest}; expected 0 for background and labels above 0: "
            "set voxels without a cell to 0"
        )
    return labels, volume


def _agreed(inside: str, series: str, path: Path) -> str:
    """The array that the address and ``series`` name, or one of them does."""
    if not series.strip():
        raise UsageError("series is empty; give the number of an image, or its name")
    if inside and inside != series.strip("/"):
        raise UsageError(
            f"{path.name}:{inside} names another image than series {series!r}; give one of the two"
        )
    return series


def refuse_known(known: Mapping[str, Any], what: str) -> None:
    """Refuse what would be ignored.

    Parameters
    ----------
    known : mapping
        What a user may have said about the image, by name; None where nothing.
    what : str
        What was given in place of a file.

    Raises
    ------
    UsageError
        Something was said.
    """
    given = [name for name, value in known.items() if value is not None]
    if given:
        raise UsageError(
            f"{' and '.join(given)} cannot be given with {what}, which has been read already; "
            "leave it out, or give it where the image is read"
            if what != "an array"
            else f"{' and '.join(given)} cannot be given with {what}, which is one image; leave "
            "it out"
        )
