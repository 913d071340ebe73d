"""The parity gate: an exported graph must compute what the PyTorch network computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from cellrt.errors import CellrtError
from cellrt.export.onnx_graph import OUTPUT
from cellrt.runtime.engines.openvino_engine import shared_core

Fields = npt.NDArray[np.float32]
Infer = Callable[[Fields], Fields]
Decode = Callable[[Fields], npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from PyTorch.

    Attributes
    ----------
    voxel : float
        Difference beyond which a voxel counts as deviating.
    share : float
        Largest share of deviating voxels.
    mean : float
        Largest mean absolute difference.
    instances : float
        Smallest AP at IoU 0.9 between the label images decoded from both.
    """

    voxel: float = 1e-3
    share: float = 0.0
    mean: float = 1e-4
    instances: float = 0.99


FP32 = Tolerance()
BF16 = Tolerance(voxel=0.1, share=0.02, mean=0.02, instances=0.9)


@dataclass(frozen=True)
class Parity:
    """What the gate measured for one engine over all tiles."""

    engine: str
    max_error: float
    mean_error: float
    share_beyond: float
    finite: bool
    instance_ap: float
    tolerance: Tolerance

    @property
    def problems(self) -> list[str]:
        """What fails, in words; empty when the engine passes."""
        limit = self.tolerance
        found = []
        if not self.finite:
            found.append("output has NaN or infinite values")
        if not self.share_beyond <= limit.share:
            found.append(
                f"{100 * self.share_beyond:.3g} % of voxels differ by more than {limit.voxel:g} "
                f"(at most {100 * limit.share:g} %; largest difference {self.max_error:.3g})"
            )
        if not self.mean_error <= limit.mean:
            found.append(f"mean difference {self.mean_error:.3g} (at most {limit.mean:g})")
        if not self.instance_ap >= limit.instances:
            found.append(
                f"AP at IoU 0.9 between the label images is {self.instance_ap:.3f} "
                f"(at least {limit.instances:g})"
            )
        return found


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
    cells = [decode(fields[0]) for fields in expected]
    results = []
    for name, infer, tolerance in _engines(graph):
        results.append(_compare(name, infer, tolerance, tiles, expected, cells, decode))
    failures = [f"{r.engine}: {'; '.join(r.problems)}" for r in results if r.problems]
    if failures:
        raise CellrtError(
            f"the exported graph fails the parity gate: {' | '.join(failures)}; nothing was written"
        )
    return results


def _compare(
    name: str,
    infer: Infer,
    tolerance: Tolerance,
    tiles: Sequence[Fields],
    expected: Sequence[Fields],
    cells: Sequence[npt.NDArray[np.int32]],
    decode: Decode,
) -> Parity:
    from cellrt.evaluation.scores import evaluate

    outputs = [infer(tile) for tile in tiles]
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    differences = [np.abs(a - b) for a, b in zip(outputs, expected, strict=True)]
    voxels = sum(d.size for d in differences)
    agreement = 0.0
    if finite:
        agreement = float(
            np.mean(
                [
                    evaluate(decode(output[0]), labels).at(0.9).average_precision
                    for output, labels in zip(outputs, cells, strict=True)
                ]
            )
        )
    return Parity(
        engine=name,
        max_error=float(max(d.max() for d in differences)),
        mean_error=float(sum(d.sum(dtype=np.float64) for d in differences) / voxels),
        share_beyond=float(sum(np.count_nonzero(~(d <= tolerance.voxel)) for d in differences))
        / voxels,
        finite=finite,
        instance_ap=agreement,
        tolerance=tolerance,
    )


def _engines(graph: onnx.ModelProto) -> list[tuple[str, Infer, Tolerance]]:
    serialised = graph.SerializeToString()
    engines = [("onnxruntime fp32", _onnxruntime(serialised), FP32)]
    core = shared_core()
    engines.append(("openvino fp32", _openvino(core, serialised, "f32"), FP32))
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        engines.append(("openvino bf16", _openvino(core, serialised, "bf16"), BF16))
    return engines


def _onnxruntime(serialised: bytes) -> Infer:
    import onnxruntime

    session = onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"])

    def infer(tile: Fields) -> Fields:
        return np.asarray(session.run([OUTPUT], {session.get_inputs()[0].name: tile})[0])

    return infer


def _openvino(core: Any, serialised: bytes, precision: str) -> Infer:
    compiled = core.compile_model(
        core.read_model(serialised), "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )

    def infer(tile: Fields) -> Fields:
        return np.array(compiled([tile])[0])

    return infer
