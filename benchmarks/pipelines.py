"""From the same file to labels: with PyTorch + MONAI + Python, and with cellrt.

The baseline is what people use today: a PyTorch network in channels-last, in 16 bits where the
device is faster in them, MONAI's sliding window with a quarter of overlap and Gaussian weights,
then Cellpose's own dynamics with 100 iterations, or for class maps ``class_map_python.py``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch
from monai.inferers import sliding_window_inference

import cellrt
from cellrt.models.cellpose3d.network import Cellpose3D
from cellrt.models.cellseg3d.network import CellSeg3D
from cellrt.models.layers.fold import fold_batch_norm
from cellrt.runtime.grid.intensity import estimate_range, normalise
from cellrt.runtime.model.card import Normalisation
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.results.label_tiff import write_labels
from cellrt.training.initial_weights import read_onnx_weights

Cells = Callable[[np.ndarray, torch.device], np.ndarray]

WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 4}


def network_of(model: ModelFile, device: torch.device) -> torch.nn.Module:
    """The weights of a model file in PyTorch, batch norm folded as in the file."""
    network = {"cellpose3d": Cellpose3D, "cellseg3d": CellSeg3D}[model.card.method]().eval()
    weights = read_onnx_weights(model.path, network)
    folded = fold_batch_norm(network)
    for name, (weight, bias) in weights.items():
        layer = folded.get_submodule(name)
        layer.weight.data, layer.bias.data = weight, bias
    return folded.eval().to(device, memory_format=torch.channels_last_3d)


def half_precision(device: torch.device) -> torch.dtype | None:
    """What PyTorch's autocast computes in: fp16 on a GPU, bf16 on a CPU with AMX, else fp32."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability().startswith("AMX") else None


def precision_words(device: torch.device) -> str:
    """The same, for people."""
    return {torch.float16: "fp16", torch.bfloat16: "bf16", None: "fp32"}[half_precision(device)]


def forward(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Run the network with PyTorch's automatic mixed precision, where the batch lies."""
    dtype = half_precision(batch.device)
    with (
        torch.inference_mode(),
        torch.autocast(batch.device.type, dtype, enabled=dtype is not None),
    ):
        fields: torch.Tensor = network(batch)
    return fields


def cellpose_cells(fields: np.ndarray, device: torch.device) -> np.ndarray:
    """Follow the flows with Cellpose's own dynamics."""
    from cellpose.dynamics import compute_masks

    # Cellpose scales flows by 5 in training and divides by 5 here; its threshold is on logits.
    probability = np.clip(fields[3], 1e-6, 1 - 1e-6)
    masks = compute_masks(
        5 * fields[:3],
        np.log(probability / (1 - probability)),
        niter=100,
        do_3D=True,
        device=device,
    )
    return np.asarray(masks[0] if isinstance(masks, tuple) else masks)


def run_pytorch(
    path: Path,
    out: Path,
    network: torch.nn.Module,
    device: torch.device,
    cells: Cells = cellpose_cells,
) -> dict[str, float]:
    """PyTorch + MONAI, and what makes cells of its fields; return seconds per stage."""
    begin = time.perf_counter()
    image = tifffile.imread(path)
    volume = normalise(image, estimate_range(image, Normalisation()))
    start = time.perf_counter()
    with torch.inference_mode():
        merged = sliding_window_inference(
            torch.from_numpy(volume[None, None]).to(device, memory_format=torch.channels_last_3d),
            roi_size=(64, 128, 128),
            sw_batch_size=WINDOWS_AT_ONCE[device.type],
            predictor=lambda windows: forward(network, windows),
            overlap=0.25,
            mode="gaussian",
        )
    fields = merged[0].float().cpu().numpy()
    middle = time.perf_counter()
    masks = cells(fields, device)
    end = time.perf_counter()
    tifffile.imwrite(out, masks.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    return {
        "network": middle - start,
        "cells": end - middle,
        "total": time.perf_counter() - begin,
    }


def run_cellrt(
    path: Path, out: Path, *, model: str | Path, diameter: float, engine: str | None = None
) -> dict[str, float]:
    """cellrt; return seconds per stage, as in its run record, and in total."""
    torch.cuda.empty_cache()  # what PyTorch keeps for itself is not free to others
    begin = time.perf_counter()
    result = cellrt.segment(path, model=model, diameter=diameter, engine=engine)
    write_labels(out, result.labels, result.volume)
    seconds: dict[str, float] = result.record["seconds"]
    return {**seconds, "total": time.perf_counter() - begin}


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median of each stage."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}
