"""The run record: what a reader of the result needs to judge and to repeat it."""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cellrt._version import __version__
from cellrt.limits import free_memory, usable_cores
from cellrt.runtime.machine.memory import peak_memory_bytes

if TYPE_CHECKING:
    from cellrt.runtime.decoding.base import Place
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.job import Job
    from cellrt.runtime.results.confidence import Quality

LIBRARIES = ("numpy", "numba", "numba-cuda", "scikit-image", "tifffile", "openvino", "onnxruntime")


def run_record(
    job: Job,
    *,
    cells: int,
    warnings: Sequence[str],
    seconds: Mapping[str, float],
    network_seconds: float,
    precision: str,
    device: str,
    place: Place,
    quality: Quality,
    left_out: Mapping[str, int],
) -> dict[str, Any]:
    """Collect the record of a finished job.

    Parameters
    ----------
    job : Job
    cells : int
        Number of cells found.
    warnings : sequence of str
        What the user should know.
    seconds : mapping
        Wall-clock time of every stage.
    network_seconds : float
        Time inside the engine; the rest of the network stage is reading, tiling and merging.
    precision, device : str
        As the engine ran; empty where it did not.
    place : Place
        Where the cells were decoded.
    quality : Quality
        What is to be expected of the cells.
    left_out : mapping of str to int
        Cells that were found and not wanted, by the option that says so.

    Returns
    -------
    dict
        JSON-ready.
    """
    model, choice = job.network.file, job.network.choice
    cores, memory = usable_cores(), free_memory()
    card, volume, grid = model.card, job.volume, job.plan.grid
    seconds = {name: round(value, 4) for name, value in seconds.items()}
    stage = seconds.get("network", 0.0)
    return {
        "cellrt": __version__,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": input_record(volume),
        "model": {
            "name": card.name,
            "file": model.path.name,
            "sha256": model.sha256,
            "method": card.method,
            "views": job.view_weights,
        },
        "decoder": {
            "name": job.decoder.name,
            "parameters": dataclasses.asdict(job.decoder.parameters),
            "device": place.device,
            "reason": place.reason,
        },
        "engine": {
            "name": choice.name,
            "reason": choice.reason,
            "skipped": dict(choice.skipped),
            "precision": precision,
            "device": device,
        },
        "options": dataclasses.asdict(job.options),
        "scale": {
            "diameter_pixels": job.scale.diameter_pixels,
            "diameter_origin": job.scale.diameter_origin,
            "spacing_zyx": list(job.scale.spacing),
            "spacing_origin": job.scale.spacing_origin,
            "image_box_zyx": [[part.start, part.stop] for part in job.image.box],
            "model_grid_zyx": list(grid.shape),
        },
        "intensity": job.findings.record(),
        "tiles": {
            "count": len(grid),
            "shape_zyx": list(grid.tile),
            "halo": grid.axes[-1].halo,
            "computed_voxels_per_voxel": round(job.plan.overhead, 3),
        },
        "cells": cells,
        "left_out": dict(left_out),
        "quality": quality.record(),
        "warnings": list(warnings),
        "seconds": {
            **seconds,
            "network_inside_engine": round(network_seconds, 4),
            "network_around_engine": round(max(0.0, stage - network_seconds), 4),
        },
        "threads": {"count": cores.number, "source": cores.source},
        "memory_limit": {"bytes": memory.limit, "source": memory.source},
        "peak_memory_bytes": peak_memory_bytes(),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
    }


def input_record(volume: Volume) -> dict[str, Any]:
    """The part of the record that says what was segmented."""
    return {
        "path": volume.address,
        "folder": None if volume.path is None else str(volume.path.parent.absolute()),
        "shape_zyx": list(volume.shape),
        "dtype": str(volume.dtype),
        "axes": volume.file_axes,
        "axes_source": str(volume.axes_source),
        "voxel_size_um": list(volume.voxel_size_um) if volume.voxel_size_um else None,
        "voxel_size_source": str(volume.voxel_size_source),
        "time": volume.time,
        "times": volume.times,
        "channel": volume.channel_names[volume.segmented_channel],
        "channel_number": volume.segmented_channel + 1,
        "channels": list(volume.channel_names),
        "channel_source": str(volume.channel_source),
    }


@functools.cache  # finding them takes longer than some images
def _versions() -> dict[str, str]:
    """Versions of the installed libraries that can change a result."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
