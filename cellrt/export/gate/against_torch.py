"""The parity gate: an exported graph must compute what the PyTorch network computes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from torch import nn

from cellrt.export.gate.compare import (
    Decode,
    Fields,
    Infer,
    Parity,
    compare,
    onnxruntime_infer,
    openvino_infer,
    refuse_failures,
)
from cellrt.export.gate.tolerances import BF16_ENGINE, FP32, Tolerance
from cellrt.runtime.network.engines.openvino import has_bf16


def check_parity(
    net: nn.Module,
    graph: onnx.ModelProto,
    tiles: Sequence[Fields],
    decode: Decode,
    tolerance: Tolerance = FP32,
) -> list[Parity]:
    """Run PyTorch, ONNX Runtime and OpenVINO on the same tiles.

    Parameters
    ----------
    net : nn.Module
        The network as trained, batch norm not folded, in evaluation mode.
    graph : onnx.ModelProto
    tiles : sequence of (1, 1, z, y, x) float32 arrays
        Real or simulated images, normalised.
    decode : callable
        From fields (channels, z, y, x) to labels.
    tolerance : Tolerance
        For engines that compute in fp32.

    Returns
    -------
    list of Parity
        One per engine and precision.

    Raises
    ------
    CellrtError
        When an engine fails the gate; the message names engine and figures.
    """
    with torch.inference_mode():
        expected = [net(torch.from_numpy(tile)).numpy() for tile in tiles]
    results = compare(_engines(graph, tolerance), tiles, expected, decode)
    refuse_failures(results, "the exported graph")
    return results


def _engines(graph: onnx.ModelProto, tolerance: Tolerance) -> list[tuple[str, Infer, Tolerance]]:
    serialised = graph.SerializeToString()
    engines = [
        ("onnxruntime fp32", onnxruntime_infer(serialised), tolerance),
        ("openvino fp32", openvino_infer(serialised, "f32"), tolerance),
    ]
    if has_bf16():
        engines.append(("openvino bf16", openvino_infer(serialised, "bf16"), BF16_ENGINE))
    return engines
