"""The decoder of flow fields, as the stages use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import (
    Decoded,
    Family,
    Merging,
    Mode,
    Place,
    Reduction,
    WholeCollector,
)
from cellrt.runtime.decoding.flows import gpu_or_cpu
from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_packed
from cellrt.runtime.decoding.flows.packed_field import pack_field, threshold_byte, unpack_flow
from cellrt.runtime.decoding.flows.steps import HOST, Steps
from cellrt.runtime.decoding.flows.targets import tanh_flow
from cellrt.runtime.decoding.try_gpu import somewhere
from cellrt.runtime.machine.transfer import host_array
from cellrt.runtime.model.card import FLOW_OUTPUTS

T = TypeVar("T")


@dataclass(frozen=True)
class FlowDecoder:
    """Cellpose3D's decoder, see :mod:`cellrt.runtime.decoding.flows.cells`.

    Fields are kept as one uint32 per voxel, see
    :mod:`cellrt.runtime.decoding.flows.packed_field`. While decoding there are pointers beside
    them, which become the labels in place. They are decoded on a GPU where there is one, with the
    same labels as on the CPU; a field may lie in the GPU's memory already.

    Parameters
    ----------
    parameters : FlowParameters
    keep_to_cpu : str
        Why a GPU must not be used; empty where it may.
    """

    parameters: FlowParameters
    keep_to_cpu: str = ""

    name: ClassVar[str] = "flows"
    modes: ClassVar[tuple[Mode, ...]] = ("fast", "exact")
    merging: ClassVar[Merging] = "weighted"
    merged: ClassVar[slice] = slice(None)
    kept_bytes: ClassVar[int] = 4
    working_bytes: ClassVar[int] = 8
    promised_bytes: ClassVar[int] = 16
    # Flows only agree where cells have the right size; that grid finds more cells than their true
    # size does.
    size_weight: ClassVar[float] = 0.0

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        if self.keep_to_cpu or gpu_or_cpu.find_gpu()[0] is None:
            gpu_or_cpu.decode_sample(HOST, self.parameters)

    def collector(self, shape: Shape) -> WholeCollector:
        """Pack flow (z, y, x) and foreground of each block into a uint32 array (z, y, x)."""
        # Whether that GPU decodes is not known yet; where it does not, decoding copies the field.
        reduction = Reduction(np.dtype(np.uint32), _kernel, stays=not self.keep_to_cpu)
        return WholeCollector(np.empty(shape, np.uint32), _pack, reduction)

    def decode(self, kept: Any, *, mode: Mode) -> Decoded:
        """Trace, label and filter; see :mod:`cellrt.runtime.decoding.flows.cells`."""
        stay = self.keep_to_cpu
        if mode == "exact":
            stay = stay or "the exact mode has no kernels for a GPU"
        cells, place = _somewhere(
            kept,
            lambda field, steps: decode_packed(field, self.parameters, mode=mode, steps=steps),
            Place("CPU", stay) if stay else None,
        )
        return Decoded(cells.labels, place, cells.evidence)

    def to_grid(self, decoded: Decoded, kept: Any, shape: Shape) -> Decoded:
        """Decode again on another grid, where every voxel needs only one step.

        It is done where the cells were found, so that a GPU that failed is not asked twice.
        """
        place = decoded.place
        labels, place = _somewhere(
            kept,
            lambda field, steps: steps.upsample(
                decoded.labels,
                field,
                shape,
                step=self.parameters.step,
                threshold=self.parameters.foreground_threshold,
                walls=self.parameters.wall_thickness > 0,
            ),
            place if place.device == "CPU" else None,
            target=shape,
        )
        return replace(decoded, labels=labels, place=place)

    def agreement(self, decoded: Decoded, kept: Any) -> float:
        """One less the mean difference of predicted and recomputed flow over the foreground."""
        kept = host_array(kept)
        inside = (kept >> np.uint32(24)) >= threshold_byte(self.parameters.foreground_threshold)
        if not inside.any():
            return 0.0
        error = np.abs(tanh_flow(decoded.labels) - unpack_flow(kept)).mean(axis=0)[inside]
        return float(1 - np.minimum(error, 1).mean())


def _kernel() -> Any:
    # Only here, because it needs a package for GPUs.
    from cellrt.runtime.decoding.flows.cuda.pack import pack

    return pack


def _pack(kept: NDArray[Any], fields: NDArray[np.float32]) -> None:
    kept[...] = pack_field(fields[:3], fields[3])


def _somewhere(
    kept: Any,
    work: Callable[[Any, Steps], T],
    place: Place | None,
    target: Shape | None = None,
) -> tuple[T, Place]:
    """Do the work at a place on the CPU; without one on the GPU, if there is one that can."""

    def there(steps: Any) -> T:
        if steps is HOST:
            return work(host_array(kept), HOST)
        steps.check_memory(kept, target)
        return work(kept, steps)

    return somewhere(gpu_or_cpu.find_gpu, HOST, there, place)


FLOWS = Family(
    FlowDecoder.name,
    ", ".join(FLOW_OUTPUTS),
    FLOW_OUTPUTS.__eq__,
    FlowParameters,
    lambda parameters, outputs, keep_to_cpu: FlowDecoder(parameters, keep_to_cpu),
)
