"""How far two graphs, or two engines, agree on the same tiles: in voxels and in cells. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import CellrtError
from cellrt.export.gate.radii import radius_errors
from cellrt.export.gate.tolerances import Tolerance
from cellrt.runtime.model.card import TURNS
from cellrt.runtime.model.card_parts import predicts_shapes
from cellrt.runtime.network.engines.openvino import shared_core

Fields = NDArray[np.float32]
Infer = Callable[[Fields], Fields]
Decode = Callable[[Fields], NDArray[np.int32]]


class GateError(CellrtError):
    """A graph that does not compute what it should; nothing was written."""


@dataclass(frozen=True)
class Parity:
    """What the gate measured for one engine over all tiles.

    Attributes
    ----------
    engine : str
        Engine and precision it computed in.
    max_error, mean_error, share_beyond : float
        Absolute differences of the fields, and the share of voxels beyond the tolerance.
    finite : bool
        No NaN, no infinity.
    instance_ap : float
        AP between the label images; 1 where both are empty.
    cells : int
        Cells in the reference's label images.
    radius_error : float or None
        Where the network predicts shapes, how far they are off in 99 of 100 voxels inside of cells,
        in voxels of radius; the differences of the fields are then those of the map alone.
    tolerance : Tolerance
    """

    engine: str
    max_error: float
    mean_error: float
    share_beyond: float
    finite: bool
    instance_ap: float
    cells: int
    radius_error: float | None
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
        if self.radius_error is not None and not self.radius_error <= limit.radius:
            found.append(
                f"shapes are off by {self.radius_error:.3g} voxels of radius (at most "
                f"{limit.radius:g} in 99 of 100 voxels inside of cells)"
            )
        if not self.instance_ap >= limit.instances:
            found.append(
                f"AP at IoU {limit.iou:g} between the label images is {self.instance_ap:.3f} "
                f"(at least {limit.instances:g})"
            )
        return found


def compare(
    engines: Sequence[tuple[str, Infer, Tolerance]],
    tiles: Sequence[Fields],
    expected: Sequence[Fields],
    decode: Decode,
    channels: Sequence[str],
) -> list[Parity]:
    """Compare engines with a reference on the same tiles.

    Parameters
    ----------
    engines : sequence of (name, infer, tolerance)
    tiles : sequence of (1, 1, z, y, x) float32 arrays
        Normalised images.
    expected : sequence of (1, channels, z, y, x) float32 arrays
        The reference's fields of each tile.
    decode : callable
        From fields (channels, z, y, x) to labels.
    channels : sequence of str
        What the fields are called.

    Returns
    -------
    list of Parity
        One per engine; none has been judged yet.
    """
    cells = [decode(fields[0]) for fields in expected]
    return [
        _compare(name, infer, tolerance, tiles, expected, cells, decode, channels)
        for name, infer, tolerance in engines
    ]


def refuse_failures(results: Sequence[Parity], what: str) -> None:
    """Raise GateError that names engines and figures where one fails its tolerance."""
    failures = [f"{r.engine}: {'; '.join(r.problems)}" for r in results if r.problems]
    if failures:
        raise GateError(
            f"{what} fails the parity gate: {' | '.join(failures)}; nothing was written"
        )


def _compare(
    name: str,
    infer: Infer,
    tolerance: Tolerance,
    tiles: Sequence[Fields],
    expected: Sequence[Fields],
    cells: Sequence[NDArray[np.int32]],
    decode: Decode,
    channels: Sequence[str],
) -> Parity:
    outputs = [infer(tile) for tile in tiles]
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    pairs = list(zip(outputs, expected, strict=True))
    compared, off = slice(None), None
    if predicts_shapes(channels):
        compared = slice(0, 1)
        errors = np.concatenate([radius_errors(channels, a[0], b[0]) for a, b in pairs])
        off = float(np.quantile(errors, 0.99)) if errors.size else 0.0
    differences = [np.abs(a[:, compared] - b[:, compared]) for a, b in pairs]
    voxels = sum(d.size for d in differences)
    agreement = 0.0
    if finite:
        labels = [decode(output[0]) for output in outputs]
        agreement = _instance_ap(labels, cells, tolerance.iou)
    return Parity(
        engine=name,
        max_error=float(max(d.max() for d in differences)),
        mean_error=float(sum(d.sum(dtype=np.float64) for d in differences) / voxels),
        share_beyond=float(sum(np.count_nonzero(~(d <= tolerance.voxel)) for d in differences))
        / voxels,
        finite=finite,
        instance_ap=agreement,
        cells=sum(int(labels.max(initial=0)) for labels in cells),
        radius_error=off,
        tolerance=tolerance,
    )


def _instance_ap(
    labels: Sequence[NDArray[np.int32]], cells: Sequence[NDArray[np.int32]], iou: float
) -> float:
    """AP over the cells of all tiles: one with few cells must not weigh like a full one."""
    from cellrt.evaluation.scores import evaluate

    rows = [evaluate(a, b, thresholds=(iou,)).at(iou) for a, b in zip(labels, cells, strict=True)]
    hits = sum(row.true_positives for row in rows)
    total = hits + sum(row.false_positives + row.false_negatives for row in rows)
    return hits / total if total else 1.0


def turns_elsewhere(count: int) -> Fields | None:
    """What a network with guides is told of a tile away from the corner, where all would be 0.

    None for a network without.
    """
    return np.linspace(-0.4, 0.5, count, dtype=np.float32)[None] if count else None


def onnxruntime_infer(serialised: bytes, turns: Fields | None = None) -> Infer:
    """Load a serialised graph into ONNX Runtime's CPU provider; `turns` is its second input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    further = {} if turns is None else {TURNS: turns}

    def infer(tile: Fields) -> Fields:
        return np.asarray(session.run(None, {name: tile, **further})[0])

    return infer


def openvino_infer(serialised: bytes, precision: str, turns: Fields | None = None) -> Infer:
    """Compile a serialised graph for OpenVINO's CPU device; ``precision`` is "f32" or "bf16"."""
    core: Any = shared_core()
    compiled = core.compile_model(
        core.read_model(serialised), "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )

    def infer(tile: Fields) -> Fields:
        return np.array(compiled([tile] if turns is None else [tile, turns])[0])

    return infer
