"""The four files of one run: where they go, and writing them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cellrt.runtime.image.formats import known_suffixes
from cellrt.runtime.progress import StageClock
from cellrt.runtime.results.label_tiff import write_labels
from cellrt.runtime.results.segmentation import Segmentation


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
    named = "." + re.sub(r"[^\w.-]+", ".", inside) if inside else ""
    labels = output or stack.with_name(f"{_stem(stack)}{named}.labels.tif")
    stem = _stem(labels).removesuffix(".labels")
    return {
        "labels": labels,
        "cells": labels.with_name(f"{stem}.cells.csv"),
        "preview": labels.with_name(f"{stem}.preview.png"),
        "run": labels.with_name(f"{stem}.run.json"),
    }


def write_results(
    result: Segmentation, paths: dict[str, Path], clock: StageClock, title: str
) -> None:
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
    volume = result.volume
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
                anisotropy=result.record["scale"]["spacing_zyx"][0],
                title=title,
                cells=len(result.table),
            )
    for name in ("write", "preview"):
        result.record["seconds"][name] = round(clock.seconds.get(name, 0.0), 4)
    paths["run"].write_text(json.dumps(result.record, indent=2, ensure_ascii=False) + "\n")


def _stem(path: Path) -> str:
    """File name without the ending of its format."""
    name = path.name
    for ending in (*known_suffixes(), ".ome"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
