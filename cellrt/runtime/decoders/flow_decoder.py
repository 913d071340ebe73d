"""The decoder of flow fields, as the pipeline uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoders.protocol import Mode, Shape

if TYPE_CHECKING:
    from cellrt.runtime.decoders.flows import FlowParameters

FLOW_OUTPUTS = ("flow_z", "flow_y", "flow_x", "foreground")


class FlowDecoder:
    """Cellpose3D's decoder, see :mod:`cellrt.runtime.decoders.flows`.

    Fields are kept as one uint32 per voxel, see :mod:`cellrt.runtime.decoders.flows_trace`. While
    decoding there are pointers beside them, which become the labels in place.
    """

    name = "flows"
    modes: tuple[Mode, ...] = ("fast", "exact")
    kept_bytes, working_bytes, promised_bytes = 4, 8, 16

    def __init__(self, parameters: FlowParameters) -> None:
        self.parameters = parameters

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        from cellrt.runtime.flow_targets import tanh_flow

        cells = np.zeros((12, 12, 26), np.int32)
        cells[1:11, 1:11, 1:12] = 1
        cells[1:11, 1:11, 13:25] = 2
        kept = self.empty((12, 12, 26))
        self.store(kept, slice(12), slice(12), np.concatenate([tanh_flow(cells), cells[None] > 0]))
        self.upsample(self.decode(kept, mode="fast"), kept, (13, 13, 27))

    def empty(self, shape: Shape) -> NDArray[np.uint32]:
        """Room for a packed field."""
        return np.empty(shape, np.uint32)

    def store(self, kept: NDArray[Any], z: slice, y: slice, fields: NDArray[np.float32]) -> None:
        """Pack a block of flow (z, y, x) and foreground."""
        from cellrt.runtime.decoders.flows_trace import pack_field

        kept[z, y] = pack_field(fields[:3], fields[3])

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Trace, label and filter; see :func:`~cellrt.runtime.decoders.flows.decode_flows`."""
        from cellrt.runtime.decoders.flows import decode_packed

        return decode_packed(kept, self.parameters, mode=mode)

    def upsample(
        self, labels: NDArray[np.int32], kept: NDArray[Any], shape: Shape
    ) -> NDArray[np.int32]:
        """Decode again on another grid, where every voxel needs only one step."""
        from cellrt.runtime.decoders.flows_upsample import upsample_labels

        return upsample_labels(
            labels,
            kept,
            shape,
            step=self.parameters.step,
            threshold=self.parameters.foreground_threshold,
            walls=self.parameters.wall_thickness > 0,
        )

    def agreement(self, labels: NDArray[np.int32], kept: NDArray[Any]) -> float:
        """One less the mean difference of predicted and recomputed flow over the foreground."""
        from cellrt.runtime.decoders.flows_trace import threshold_byte, unpack_flow
        from cellrt.runtime.flow_targets import tanh_flow

        inside = (kept >> np.uint32(24)) >= threshold_byte(self.parameters.foreground_threshold)
        if not inside.any():
            return 0.0
        error = np.abs(tanh_flow(labels) - unpack_flow(kept)).mean(axis=0)[inside]
        return float(1 - np.minimum(error, 1).mean())
