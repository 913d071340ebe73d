"""The parity gate: an exported graph must compute what the PyTorch network computes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch

from cellrt.export.gate.compare import (
    Decode,
    Fields,
    Infer,
    Parity,
    compare,
    onnxruntime_infer,
    openvino_infer,
    refuse_failures,
    turns_elsewhere,
)
from cellrt.export.gate.tolerances import BF16_ENGINE, FP32, Tolerance
from cellrt.models.layers.network import Network
from cellrt.runtime.network.engines.openvino import has_bf16


def check_parity(
    net: Network,
    graph: onnx.ModelProto,
    tiles: Sequence[Fields],
    decode: Decode,
    channels: Sequence[str],
    tolerance: Tolerance = FP32,
) -> list[Parity]:
    """Run PyTorch, ONNX Runtime and OpenVINO on the same tiles.

    Parameters
    ----------
    net : Network
        The network as trained, batch norm not folded, in evaluation mode.
    graph : onnx.ModelProto
    tiles : sequence of (1, 1, z, y, x) float32 arrays
        Real or simulated images, normalised.
    decode : callable
        From fields (channels, z, y, x) to labels.
    channels : sequence of str
        What the fields are called.
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
    turns = turns_elsewhere(net.takes_turns)
    told = () if turns is None else (torch.from_numpy(turns),)
    with torch.inference_mode():
        expected = [net(torch.from_numpy(tile), *told).numpy() for tile in tiles]
    engines = _engines(graph, tolerance, turns)
    results = compare(engines, tiles, expected, decode, channels)
    refuse_failures(results, "the exported graph")
    return results


def _engines(
    graph: onnx.ModelProto, tolerance: Tolerance, turns: Fields | None
) -> list[tuple[str, Infer, Tolerance]]:
    serialised = graph.SerializeToString()
    engines = [
        ("onnxruntime fp32", onnxruntime_infer(serialised, turns), tolerance),
        ("openvino fp32", openvino_infer(serialised, "f32", turns), tolerance),
    ]
    # Waves over a whole image have no place in bf16's 8 bits; such networks are computed in fp32.
    if has_bf16() and turns is None:
        engines.append(("openvino bf16", openvino_infer(serialised, "bf16", turns), BF16_ENGINE))
    return engines
