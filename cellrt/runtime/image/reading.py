"""Whatever is given to be segmented becomes a `Volume`, or is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError, UsageError
from cellrt.runtime.image.formats import read_volume
from cellrt.runtime.image.volume import Volume, volume_from_array

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
