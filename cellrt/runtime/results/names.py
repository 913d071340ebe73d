"""Names of the files of one run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from cellrt.errors import UsageError
from cellrt.files import means_folder, output_file
from cellrt.runtime.image.formats import is_image_folder, known_suffixes
from cellrt.runtime.image.volume import Volume

_ENDINGS = (".tif", ".tiff")

EXTRAS = {"rois": ".rois.zip", "overlaps": ".overlaps.tif"}
"""What is written on request, and how its name ends: outlines of cells as ImageJ ROIs, and cells
that are whole where others cover them, as a stack of labels."""


def result_paths(
    volume: Volume, output: str | os.PathLike[str] | None, extras: Collection[str] = ()
) -> dict[str, Path]:
    """Final paths of all results.

    What was chosen of several is part of their names, so that two time points never share one: the
    array or image in the file, the time point, the channel, both by number. Where there was
    nothing to choose, or an output is named, it is not.

    Parameters
    ----------
    volume : Volume
        The results go beside its file where no output is named.
    output : str, Path or None
        The label file, a TIFF; the others go beside it. Or a folder, which exists or ends in a
        slash: all go into it, called as they would be beside the file.
    extras : collection of str
        Of the keys of `EXTRAS`: what is written, too.

    Raises
    ------
    UsageError
        The output is no name for a TIFF file; or there is none, or only a folder, and the image
        was no file; or an extra that is for another kind of image.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from cellrt.runtime.image.volume import volume_from_array
    >>> array = np.zeros((3, 2, 8, 8), np.uint8)
    >>> volume = volume_from_array(array[0], axes="ZYX")
    >>> volume = replace(volume, path=Path("a.ome.tif"))
    >>> [p.name for p in result_paths(volume, None).values()]
    ['a.labels.tif', 'a.cells.csv', 'a.preview.png', 'a.run.json']
    >>> [p.name for p in result_paths(volume, "out/b.tif").values()]
    ['b.tif', 'b.cells.csv', 'b.preview.png', 'b.run.json']
    >>> movie = volume_from_array(array, axes="TZYX", time=2)
    >>> movie = replace(movie, path=Path("c.h5"), inside="volumes/raw")
    >>> result_paths(movie, "out/")["labels"].as_posix()
    'out/c.volumes.raw.t2.labels.tif'
    """
    text = None if output is None else os.fspath(output)
    if text is None or is_folder(text):
        if volume.path is None:
            raise UsageError(
                "an array has no file name; say where the labels go, as in save('a.tif')"
            )
        folder = volume.path.parent if text is None else Path(text)
        labels = folder / f"{_stem(volume.path)}{_chosen(volume)}.labels.tif"
    else:
        labels = named_labels(text)
    _refuse_inside_store(labels)
    _refuse_extras(extras, volume)
    stem = _stem(labels).removesuffix(".labels")
    return {
        "labels": labels,
        "cells": labels.with_name(f"{stem}.cells.csv"),
        "preview": labels.with_name(f"{stem}.preview.png"),
        "run": labels.with_name(f"{stem}.run.json"),
        **{name: labels.with_name(stem + EXTRAS[name]) for name in EXTRAS if name in extras},
    }


def named_labels(text: str) -> Path:
    """The label file that a user named.

    Raises
    ------
    UsageError
        It is no name for a TIFF file.
    """
    labels = output_file(text)
    _refuse_other_ending(labels)
    return labels


def is_folder(text: str) -> bool:
    """Whether an output is one: by a slash at its end, or because it is there."""
    return means_folder(text) or os.path.isdir(text)


def _refuse_extras(extras: Collection[str], volume: Volume) -> None:
    if "overlaps" in extras and not volume.is_2d:
        raise UsageError(
            f"--overlaps is for one slice, and the image has {volume.shape[0]}; leave it out"
        )


def _chosen(volume: Volume) -> str:
    """What was chosen of several in a file, as a part of names; empty where nothing was."""
    parts = [_safe(volume.inside)] if volume.inside else []
    # Numbers, as names of channels may hold anything, or the same twice.
    counts = (
        ("t", volume.time, volume.times),
        ("c", volume.segmented_channel + 1, len(volume.channels)),
    )
    for letter, number, count in counts:
        if count > 1:
            parts.append(f"{letter}{number:0{len(str(count))}d}")
    return "".join(f".{part}" for part in parts)


def _safe(inside: str) -> str:
    """Name of an array in a file as part of a file's name; two names never become one.

    Examples
    --------
    >>> _safe("volumes/raw"), _safe("volumes.raw")
    ('volumes.raw', 'volumes_raw-217c02')
    """
    if re.fullmatch(r"[\w-]+(/[\w-]+)*", inside):
        return inside.replace("/", ".")
    readable = re.sub(r"[^\w-]+", "_", inside)
    digest = hashlib.sha256(inside.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:6]}"


def _refuse_other_ending(labels: Path) -> None:
    name = labels.name.lower()
    if not name.endswith(_ENDINGS) or not _stem(labels).removesuffix(".labels"):
        raise UsageError(
            f"the output {labels} names no label file, which is a TIFF; expected NAME.tif, or a "
            "folder with a slash at its end"
        )


def _refuse_inside_store(labels: Path) -> None:
    """Refuse to write between the parts of a folder that is an image."""
    for folder in labels.parents:
        if is_image_folder(folder):
            raise UsageError(f"{labels} would be inside of {folder}; name another place with -o")


def _stem(path: Path) -> str:
    """File name without the ending of its format."""
    name = path.name
    for ending in (*known_suffixes(), ".ome"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
