"""The files of one run, four and those asked for beside them: where they go, and writing them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError, one_line
from cellrt.files import atomic_outputs, foresee_outputs, output_file
from cellrt.runtime.image.formats import is_image_folder, known_suffixes, locate
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.progress import Silent, StageClock
from cellrt.runtime.results.label_tiff import write_labels, write_layers
from cellrt.runtime.results.table import CellTable

_ENDINGS = (".tif", ".tiff")

EXTRAS = {"rois": ".rois.zip", "overlaps": ".overlaps.tif"}
"""What is written on request, and how its name ends: outlines of cells as ImageJ ROIs, and cells
that are whole where others cover them, as a stack of labels."""


def check_extras(extras: Collection[str], decoder: str) -> None:
    """Refuse what is asked for and cannot be written, before anything is computed.

    Parameters
    ----------
    extras : collection of str
        Of the keys of `EXTRAS`.
    decoder : str
        The name of the one that finds the cells.

    Raises
    ------
    UsageError
        No package to write ROIs with, or a decoder that knows nothing of covered cells.
    """
    if "rois" in extras:
        from cellrt.runtime.results.rois import require_roifile

        require_roifile()
    if "overlaps" in extras and decoder != "embedding":
        raise UsageError(
            f"--overlaps cannot be asked for: the decoder {decoder} gives a cell no parts on both "
            "sides of one that crosses it, as embedding does; leave it out"
        )


def _refuse_extras(extras: Collection[str], volume: Volume) -> None:
    if "overlaps" in extras and not volume.is_2d:
        raise UsageError(
            f"--overlaps is for one slice, and the image has {volume.shape[0]}; leave it out"
        )


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
    if text is None or _is_folder(text):
        if volume.path is None:
            raise UsageError(
                "an array has no file name; say where the labels go, as in save('a.tif')"
            )
        folder = volume.path.parent if text is None else Path(text)
        labels = folder / f"{_stem(volume.path)}{_chosen(volume)}.labels.tif"
    else:
        labels = _named_labels(text)
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


class Result(Protocol):
    """What is written: a :class:`~cellrt.runtime.results.segmentation.Segmentation`."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """Labels, shape (z, y, x) or (y, x)."""
        ...

    @property
    def table(self) -> CellTable:
        """One row per cell."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """What ran and how."""
        ...

    @property
    def volume(self) -> Volume:
        """The input."""
        ...


def save(
    result: Result,
    labels: str | os.PathLike[str] | None = None,
    *,
    preview: bool = True,
    overwrite: bool = False,
    extras: Collection[str] = (),
) -> dict[str, Path]:
    """Write all results; see :meth:`cellrt.runtime.results.segmentation.Segmentation.save`."""
    check_extras(extras, result.record["decoder"]["name"])
    with outputs_of(result.volume, labels, overwrite=overwrite, extras=extras) as outputs:
        return write_results(result, outputs, StageClock(Silent()), preview=preview)


@dataclass(frozen=True)
class Outputs:
    """Where results go: final paths, and temporary ones to write to."""

    final: dict[str, Path]
    temporary: dict[str, Path]


class _Needs(TypedDict):
    needed_bytes: int
    inputs: list[Path]


@contextmanager
def outputs_of(
    volume: Volume,
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
    extras: Collection[str] = (),
) -> Iterator[Outputs]:
    """Hold the results of an image for one run, which writes them before the body ends.

    Parameters as for :func:`result_paths`; errors also as :func:`cellrt.files.atomic_outputs`.
    """
    final = result_paths(volume, output, extras)
    with atomic_outputs(final, overwrite=overwrite, **_needs(volume)) as temporary:
        yield Outputs(final, temporary)


def foresee_outputs_of(
    volume: Volume,
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
    extras: Collection[str] = (),
) -> dict[str, Path]:
    """Return what `outputs_of` would write, or refuse it as that would, and touch nothing."""
    final = result_paths(volume, output, extras)
    foresee_outputs(final, overwrite=overwrite, **_needs(volume))
    return final


def foresee_place(
    address: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
) -> None:
    """Refuse an image that is not there, or a place for results, as far as names alone tell.

    Parameters
    ----------
    address : str or path
        Of the image, as for `read`.
    output, overwrite
        As for :func:`result_paths` and `outputs_of`.

    Raises
    ------
    InputError, UsageError, ResourceError
        As those.
    """
    path, _, _ = locate(address)
    named = output is not None and not _is_folder(os.fspath(output))
    if output is not None and named:
        labels = _named_labels(os.fspath(output))
    else:  # a name that nothing has, as the result's own follows from what is in the file
        labels = Path(path.parent if output is None else output) / ".cellrt-foreseen.tif"
    foresee_outputs({"labels": labels}, overwrite=overwrite, inputs=[path])


def _named_labels(text: str) -> Path:
    """The label file that a user named."""
    labels = output_file(text)
    _refuse_other_ending(labels)
    return labels


def _needs(volume: Volume) -> _Needs:
    """Room that results take, and what they may not replace."""
    return {
        # Labels hardly ever compress to more than this; a picture and a table take the rest.
        "needed_bytes": math.prod(volume.shape) // 2 + 2_000_000,
        "inputs": [] if volume.path is None else [volume.path],
    }


def write_results(
    result: Result, outputs: Outputs, clock: StageClock, *, preview: bool = True
) -> dict[str, Path]:
    """Write all results, with or without the preview; return the final paths.

    Parameters
    ----------
    result : Segmentation
        Its record is given the seconds that writing takes.
    outputs : Outputs
        As from :func:`outputs_of`.
    clock : StageClock
    preview : bool
    """
    paths = outputs.temporary
    volume, record = result.volume, result.record
    labels = result.labels.reshape(volume.shape)
    with clock.stage("write"):
        write_labels(paths["labels"], labels, volume)
        result.table.write_csv(paths["cells"])
        _write_extras(paths, labels, volume)
    for text in _older_extras(outputs.final):
        clock.progress.note(text, warning=True)
        record["warnings"].append(text)
    if preview:
        # Drawing takes modules that a run without a picture never loads.
        from cellrt.runtime.results.preview.page import write_preview

        with clock.stage("preview"):
            write_preview(
                paths["preview"],
                volume.image,
                labels,
                volume.full_voxel_size_um,
                anisotropy=record["scale"]["spacing_zyx"][0],
                title=_title(volume, outputs.final["labels"].name),
                cells=len(result.table),
                note=f"intensity {record['intensity']['line']}",
            )
    for name in ("write", "preview"):
        record["seconds"][name] = round(clock.seconds.get(name, 0.0), 4)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # Names are UTF-8 where they can be, whatever the locale took them for. A byte that is none is
    # written as \\udcXX, from which it can be got back.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    paths["run"].write_text(text, encoding="utf-8", errors="backslashreplace")
    return {name: path for name, path in outputs.final.items() if preview or name != "preview"}


def _write_extras(paths: dict[str, Path], labels: NDArray[np.int32], volume: Volume) -> None:
    """Write what was asked for beside the four files; its modules are not loaded without."""
    if "overlaps" not in paths and "rois" not in paths:
        return
    from cellrt.runtime.results.masks import layers_of, masks_of, whole_masks

    masks = [(whole_masks if "overlaps" in paths else masks_of)(plane) for plane in labels]
    if "overlaps" in paths:
        write_layers(paths["overlaps"], layers_of(masks[0], volume.shape[1:]), volume)
    if "rois" in paths:
        from cellrt.runtime.results.rois import write_rois

        write_rois(paths["rois"], masks)


def _older_extras(final: dict[str, Path]) -> Iterator[str]:
    """Say what lies beside the results, is called as if it were one of them, and shows others."""
    stem = final["run"].name.removesuffix(".run.json")
    for name, ending in EXTRAS.items():
        other = final["run"].with_name(stem + ending)
        if name not in final and os.path.exists(other):  # a name may be too long
            yield (
                f"{one_line(other.name)} is of an earlier run and shows its cells, not these; "
                f"remove it, or write it anew with --{name}"
            )


def _title(volume: Volume, otherwise: str) -> str:
    """What was segmented, in words."""
    parts = [otherwise if volume.path is None else volume.path.name]
    if volume.path is not None and volume.inside:
        parts[0] += f":{volume.inside}"
    if volume.times > 1:
        parts.append(f"time {volume.time} of {volume.times}")
    if len(volume.channels) > 1:
        number, name = volume.segmented_channel + 1, volume.channel_names[volume.segmented_channel]
        standard = f"channel {number}"
        parts.append(standard if name == standard else f"{standard} ({name})")
    return one_line(", ".join(parts))


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


def _is_folder(text: str) -> bool:
    return text.endswith(tuple(filter(None, (os.sep, os.altsep)))) or os.path.isdir(text)


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
