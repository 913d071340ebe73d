"""From the same file to labels: with PyTorch + MONAI + Python, and with cellrt.

The baseline is what people use today, with nothing against it: the same image on the same grid, a
PyTorch network in channels-last, in 32 bits and in the 16 that the device is fast in, MONAI's
sliding window with a quarter of overlap and Gaussian weights over windows of cellrt's tiles, then
Cellpose's own dynamics at the threshold of the model's card, for class maps
``class_map_python.py`` and for shapes ``shapes_python.py``, and labels brought back to the image's
grid as Cellpose does it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from cellpose_dynamics import cellpose_masks
from report import ROOT

import cellrt
from cellrt.geometry import Shape
from cellrt.runtime.decoding.flows.walls import fill_walls
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.machine.hardware import cpu_has_bf16
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.results.label_tiff import write_labels
from cellrt.training.initial_weights import folded_network
from cellrt.training.recipe import load_recipe

Cells = Callable[[np.ndarray, ModelCard, torch.device], np.ndarray]

WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 4}
AUTOCAST = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Grid:
    """Where a network computes, for both pipelines.

    Parameters
    ----------
    diameter : float
        What cellrt is told, in voxels of the image: it decides the grid.
    shape, tile : (int, int, int)
        Of the whole image, and of what the network sees at once; as cellrt plans them.
    """

    diameter: float
    shape: Shape
    tile: Shape


def planned_grid(path: Path, model: str | Path, diameter: float) -> Grid:
    """The grid that cellrt plans for cells of such a diameter."""
    plan = cellrt.Segmenter(model).prepare(path, diameter=diameter).plan
    return Grid(diameter, plan.grid.shape, plan.grid.tile)


def network_of(model: ModelFile, device: torch.device) -> torch.nn.Module:
    """The weights of a model file in PyTorch, batch norm folded as in the file."""
    network = load_recipe(ROOT / model.card.recipe).method().network()
    folded = folded_network(model.path, network)
    return folded.eval().to(device, memory_format=torch.channels_last_3d)


def precisions(device: torch.device) -> tuple[str, ...]:
    """What PyTorch computes in: 32 bits, and the 16 that the device has instructions for.

    Its convolutions are in TF32 by default where a GPU has that.
    """
    if device.type == "cuda":
        has_tf32 = torch.cuda.get_device_capability(device) >= (8, 0)
        return "tf32" if has_tf32 and torch.backends.cudnn.allow_tf32 else "fp32", "fp16"
    return ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)


def forward(network: torch.nn.Module, batch: torch.Tensor, precision: str) -> torch.Tensor:
    """Run the network with PyTorch's automatic mixed precision, where the batch lies."""
    dtype = AUTOCAST[precision]
    with (
        torch.inference_mode(),
        torch.autocast(batch.device.type, dtype, enabled=dtype is not None),
    ):
        fields: torch.Tensor = network(batch)
    return fields


def cellpose_cells(fields: np.ndarray, card: ModelCard, device: torch.device) -> np.ndarray:
    """Follow the flows with Cellpose's own dynamics, from the threshold of the model's card."""
    threshold = card.decoder_parameters.get("foreground_threshold", 0.5)
    return cellpose_masks(fields[:3], fields[3], threshold, device)


def walls_filled(labels: np.ndarray, card: ModelCard, grid: Grid) -> np.ndarray:
    """Give walls to the nearest cell, as cellrt's decoder and the ground truth do.

    Networks for membranes are trained to leave them out, and Cellpose does not know that.
    """
    filled = labels.astype(np.int32)
    voxels = grid.diameter / card.diameter_voxels  # of the image, per voxel of the model's grid
    fill_walls(filled, voxels * card.decoder_parameters.get("wall_thickness", 0.0))
    return filled


def run_pytorch(
    path: Path,
    out: Path,
    network: torch.nn.Module,
    card: ModelCard,
    grid: Grid,
    device: torch.device,
    *,
    precision: str,
    cells: Cells = cellpose_cells,
) -> dict[str, float]:
    """PyTorch + MONAI, and what makes cells of its fields; return seconds per stage."""
    from monai.inferers import sliding_window_inference

    begin = time.perf_counter()
    image = tifffile.imread(path)
    volume = prepare_image(image, grid.shape, card.normalisation).read((0, 0, 0), grid.shape)
    start = time.perf_counter()
    with torch.inference_mode():
        merged = sliding_window_inference(
            torch.from_numpy(volume[None, None]).to(device, memory_format=torch.channels_last_3d),
            roi_size=grid.tile,
            sw_batch_size=WINDOWS_AT_ONCE[device.type],
            predictor=lambda windows: forward(network, windows, precision),
            overlap=0.25,
            mode="gaussian",
        )
    fields = merged[0].float().cpu().numpy()
    middle = time.perf_counter()
    masks = nearest(cells(fields, card, device), image.shape)
    end = time.perf_counter()
    tifffile.imwrite(out, masks.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    return {
        "network": middle - start,
        "cells": end - middle,
        "total": time.perf_counter() - begin,
    }


def nearest(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring labels to another grid by the nearest voxel."""
    for axis, (n, m) in enumerate(zip(labels.shape, shape, strict=True)):
        if n != m:
            labels = labels.take(((np.arange(m) + 0.5) * n / m).astype(np.intp), axis)
    return labels


def run_cellrt(
    path: Path,
    out: Path,
    *,
    model: str | Path,
    diameter: float,
    engine: str | None = None,
    precision: str = "auto",
) -> dict[str, float]:
    """cellrt; return seconds per stage, as in its run record, and in total."""
    torch.cuda.empty_cache()  # what PyTorch keeps for itself is not free to others
    begin = time.perf_counter()
    result = cellrt.segment(
        path, model=model, diameter=diameter, engine=engine, precision=precision
    )
    write_labels(out, result.labels, result.volume)
    seconds: dict[str, float] = result.record["seconds"]
    return {**seconds, "total": time.perf_counter() - begin}


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median of each stage."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}
