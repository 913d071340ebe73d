"""The four files of one run: where they go, and writing them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.files import atomic_outputs
from cellrt.runtime.image.formats import known_suffixes
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.progress import Silent, StageClock
from cellrt.runtime.results.label_tiff import write_labels
from cellrt.runtime.results.table import CellTable


def result_paths(stack: Path, output: Path | None, *, inside: str = "") -> dict[str, Path]:
    """Final paths of all results.

    Parameters
    ----------
    stack : Path
        The results go beside it where no output is named.
    output : Path or None
        The label file; the others go beside it.
    inside : str
        Name of the array in the file, for files that hold several: part of the results' names.

    Examples
    --------
    >>> [p.name for p in result_paths(Path("a.ome.tif"), None).values()]
    ['a.labels.tif', 'a.cells.csv', 'a.preview.png', 'a.run.json']
    >>> [p.name for p in result_paths(Path("a.tif"), Path("out/b.tif")).values()]
    ['b.tif', 'b.cells.csv', 'b.preview.png', 'b.run.json']
    >>> result_paths(Path("c.h5"), None, inside="volumes/raw")["labels"].name
    'c.volumes.raw.labels.tif'
    """
    for path, what in ((output, "the output"), (None if output else stack, "the input")):
        if path is not None and not path.name:
            raise UsageError(f"{what} is '{path}', which names no file; give a file's path")
    named = "." + re.sub(r"[^\w.-]+", ".", inside) if inside else ""
    labels = output or stack.with_name(f"{_stem(stack)}{named}.labels.tif")
    stem = _stem(labels).removesuffix(".labels")
    return {
        "labels": labels,
        "cells": labels.with_name(f"{stem}.cells.csv"),
        "preview": labels.with_name(f"{stem}.preview.png"),
        "run": labels.with_name(f"{stem}.run.json"),
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
    labels: str | Path | None = None,
    *,
    preview: bool = True,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write all results; see :meth:`cellrt.runtime.results.segmentation.Segmentation.save`."""
    stack = result.volume.path
    if labels is None and stack is None:
        raise UsageError("an array has no file name; say where the labels go, as in save('a.tif')")
    inside = result.volume.inside
    paths = result_paths(stack or Path(), None if labels is None else Path(labels), inside=inside)
    if not preview:
        del paths["preview"]
    inputs = [] if stack is None else [stack]
    needed = needed_bytes(result.volume)
    with atomic_outputs(
        paths, overwrite=overwrite, needed_bytes=needed, inputs=inputs
    ) as temporary:
        title = paths["labels"].name if stack is None else stack.name
        title += f":{inside}" if stack is not None and inside else ""
        write_results(result, temporary, StageClock(Silent()), title)
    return paths


def needed_bytes(volume: Volume) -> int:
    """Room that the results of an image take on a disk at most, about."""
    # Labels hardly ever compress to more than this; a picture and a table take the rest.
    return 2 * math.prod(volume.shape) + 10_000_000


def write_results(result: Result, paths: dict[str, Path], clock: StageClock, title: str) -> None:
    """Write all results, the preview where it has a path.

    Parameters
    ----------
    result : Segmentation
        Its record is given the seconds that writing takes.
    paths : dict
        As from :func:`result_paths`, or temporary ones.
    clock : StageClock
    title : str
        Of the preview.
    """
    volume, record = result.volume, result.record
    labels = result.labels.reshape(volume.shape)
    with clock.stage("write"):
        write_labels(paths["labels"], labels, volume)
        result.table.write_csv(paths["cells"])
    if "preview" in paths:
        # Drawing takes modules that a run without a picture never loads.
        from cellrt.runtime.results.preview.page import write_preview

        with clock.stage("preview"):
            write_preview(
                paths["preview"],
                volume.image,
                labels,
                volume.full_voxel_size_um,
                anisotropy=record["scale"]["spacing_zyx"][0],
                title=title,
                cells=len(result.table),
                note=f"intensity {record['intensity']['line']}",
            )
    for name in ("write", "preview"):
        record["seconds"][name] = round(clock.seconds.get(name, 0.0), 4)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    paths["run"].write_text(text, encoding="utf-8")


def _stem(path: Path) -> str:
    """File name without the ending of its format."""
    name = path.name
    for ending in (*known_suffixes(), ".ome"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
