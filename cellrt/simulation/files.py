"""Simulated stacks as files."""

from __future__ import annotations

import json
from pathlib import Path

import tifffile

from cellrt.files import atomic_outputs
from cellrt.runtime.image.formats.tiff_voxel_size import SOFTWARE
from cellrt.runtime.image.volume import volume_from_array
from cellrt.runtime.results.label_tiff import write_labels, write_layers
from cellrt.simulation.stack import SimulatedStack


def stack_paths(folder: Path, name: str) -> dict[str, Path]:
    """Files of one simulated stack.

    Examples
    --------
    >>> [p.name for p in stack_paths(Path("sim"), "nuclei_000").values()]
    ['nuclei_000.tif', 'nuclei_000.truth.tif', 'nuclei_000.json']
    """
    return {
        "image": folder / f"{name}.tif",
        "truth": folder / f"{name}.truth.tif",
        "parameters": folder / f"{name}.json",
    }


def save_stack(
    stack: SimulatedStack, folder: Path, name: str, *, overwrite: bool = False
) -> dict[str, Path]:
    """Write image, labels and parameters; all of them or nothing.

    Parameters
    ----------
    stack : SimulatedStack
    folder : Path
        Made when it does not exist.
    name : str
        File name without ending.
    overwrite : bool
        Replace files that exist.

    Returns
    -------
    dict of str to Path
        Image (ImageJ TIFF with voxel size), labels (TIFF; of cells that overlap one channel for
        each layer) and parameters (JSON).

    Raises
    ------
    InputError
        When a file exists already or the folder cannot be written to.
    ResourceError
        When the disk is full.
    """
    paths = stack_paths(folder, name)
    z, y, x = stack.voxel_size_um
    volume = volume_from_array(stack.image, axes="ZYX", voxel_size_um=stack.voxel_size_um)
    record = {"kind": stack.kind, "cells": stack.cell_count, **stack.parameters}
    truth = stack.labels if stack.layers is None else stack.layers
    with atomic_outputs(
        paths, overwrite=overwrite, needed_bytes=stack.image.nbytes + truth.nbytes
    ) as temporary:
        tifffile.imwrite(
            temporary["image"],
            stack.image,
            imagej=True,
            compression="zlib",
            resolution=(1 / x, 1 / y),
            software=SOFTWARE,
            metadata={
                "axes": "ZYX",
                "spacing": z,
                "unit": "um",
                "min": float(stack.image.min()),
                "max": float(stack.image.max()),
            },
        )
        write = write_labels if stack.layers is None else write_layers
        write(temporary["truth"], truth, volume)
        temporary["parameters"].write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return paths
