"""The parity gate: an exported graph must compute what the PyTorch network computes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from torch import nn

from cellrt.export.agreement import (
    Decode,
    Fields,
    Infer,
    Parity,
    Tolerance,
    compare,
    onnxruntime_infer,
    openvino_has_bf16,
    openvino_infer,
    refuse_failures,
)

FP32 = Tolerance()
BF16 = Tolerance(voxel=0.1, share=0.02, mean=0.02, instances=0.9)


def check_parity(
    net: nn.Module, graph: onnx.ModelProto, tiles: Sequence[Fields], decode: Decode
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
        From fields (4, z, y, x) to labels.

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
    results = compare(_engines(graph), tiles, expected, decode)
    refuse_failures(results, "the exported graph")
    return results


def _engines(graph: onnx.ModelProto) -> list[tuple[str, Infer, Tolerance]]:
    serialised = graph.SerializeToString()
    engines = [
        ("onnxruntime fp32", onnxruntime_infer(serialised), FP32),
        ("openvino fp32", openvino_infer(serialised, "f32"), FP32),
    ]
    if openvino_has_bf16():
        engines.append(("openvino bf16", openvino_infer(serialised, "bf16"), BF16))
    return engines
