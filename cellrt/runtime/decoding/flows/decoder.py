"""The decoder of flow fields, as the pipeline uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import first_line
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Mode, Place

if TYPE_CHECKING:
    from cellrt.runtime.decoding.flows.cells import FlowParameters
    from cellrt.runtime.decoding.flows.steps import Steps

FLOW_OUTPUTS = ("flow_z", "flow_y", "flow_x", "foreground")


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

    name = "flows"
    modes: tuple[Mode, ...] = ("fast", "exact")
    kept_bytes, working_bytes, promised_bytes = 4, 8, 16
    # Flows only agree where cells have the right size; that grid finds more cells than their true
    # size does.
    size_weight = 0.0

    def __init__(self, parameters: FlowParameters, *, keep_to_cpu: str = "") -> None:
        self.parameters = parameters
        self.keep_to_cpu = keep_to_cpu
        self.place = Place("CPU", keep_to_cpu or "nothing was decoded")

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        from cellrt.runtime.decoding.flows.gpu_or_cpu import decode_sample, find_gpu
        from cellrt.runtime.decoding.flows.steps import HOST

        if self.keep_to_cpu or find_gpu()[0] is None:
            decode_sample(HOST)

    def empty(self, shape: Shape) -> NDArray[np.uint32]:
        """Room for a packed field."""
        return np.empty(shape, np.uint32)

    def store(self, kept: NDArray[Any], z: slice, y: slice, fields: NDArray[np.float32]) -> None:
        """Pack a block of flow (z, y, x) and foreground."""
        from cellrt.runtime.decoding.flows.packed_field import pack_field

        kept[z, y] = pack_field(fields[:3], fields[3])

    def decode(self, kept: Any, *, mode: Mode) -> NDArray[np.int32]:
        """Trace, label and filter; see :mod:`cellrt.runtime.decoding.flows.cells`."""
        from cellrt.runtime.decoding.flows.cells import decode_packed

        if mode == "exact":
            self.keep_to_cpu = self.keep_to_cpu or "the exact mode has no kernels for a GPU"
        return self._somewhere(
            kept, lambda field, steps: decode_packed(field, self.parameters, mode=mode, steps=steps)
        )

    def upsample(self, labels: NDArray[np.int32], kept: Any, shape: Shape) -> NDArray[np.int32]:
        """Decode again on another grid, where every voxel needs only one step."""
        return self._somewhere(
            kept,
            lambda field, steps: steps.upsample(
                labels,
                field,
                shape,
                step=self.parameters.step,
                threshold=self.parameters.foreground_threshold,
                walls=self.parameters.wall_thickness > 0,
            ),
            target=shape,
        )

    def _somewhere(
        self,
        kept: Any,
        work: Callable[[Any, Steps], NDArray[np.int32]],
        target: Shape | None = None,
    ) -> NDArray[np.int32]:
        """Do the work on the GPU, or where that is not to be, on the CPU."""
        from cellrt.runtime.decoding.flows.gpu_or_cpu import find_gpu, host_array
        from cellrt.runtime.decoding.flows.steps import HOST

        if not self.keep_to_cpu:
            steps, self.place = find_gpu()
            if steps is not None:
                try:
                    steps.check_memory(kept, target)
                    return work(kept, steps)
                except Exception as error:  # the driver's own untyped errors too
                    self.keep_to_cpu = (
                        f"{self.place.device} could not decode ({first_line(error)}); "
                        "the CPU did, with the same result"
                    )
                    self.place = Place("CPU", self.keep_to_cpu, fell_back=True)
        elif not self.place.fell_back:
            self.place = Place("CPU", self.keep_to_cpu)
        return work(host_array(kept), HOST)

    def agreement(self, labels: NDArray[np.int32], kept: NDArray[Any]) -> float:
        """One less the mean difference of predicted and recomputed flow over the foreground."""
        from cellrt.runtime.decoding.flows.gpu_or_cpu import host_array
        from cellrt.runtime.decoding.flows.packed_field import threshold_byte, unpack_flow
        from cellrt.runtime.decoding.flows.targets import tanh_flow

        kept = host_array(kept)
        inside = (kept >> np.uint32(24)) >= threshold_byte(self.parameters.foreground_threshold)
        if not inside.any():
            return 0.0
        error = np.abs(tanh_flow(labels) - unpack_flow(kept)).mean(axis=0)[inside]
        return float(1 - np.minimum(error, 1).mean())
