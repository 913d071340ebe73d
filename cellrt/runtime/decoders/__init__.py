"""Decoders: from a network's fields to labels. One module per family, chosen by the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError

if TYPE_CHECKING:
    from cellrt.runtime.card import ModelCard
    from cellrt.runtime.decoders.flows import FlowParameters

FLOW_OUTPUTS = ("flow_z", "flow_y", "flow_x", "foreground")


class Decoder(Protocol):
    """A decoder with its parameters set."""

    def warm_up(self) -> None:
        """Compile every kernel, so that a first run can do it while the network computes."""
        ...

    def decode(
        self, flow: NDArray[Any], foreground: NDArray[Any], *, mode: Literal["fast", "exact"]
    ) -> NDArray[np.int32]:
        """Labels (z, y, x) on the model's grid from (3, z, y, x) flow and (z, y, x) foreground."""
        ...

    def upsample(
        self,
        labels: NDArray[np.int32],
        flow: NDArray[Any],
        foreground: NDArray[Any],
        shape: tuple[int, int, int],
    ) -> NDArray[np.int32]:
        """Labels on a grid of another shape that covers the same volume."""
        ...


class FlowDecoder:
    """Cellpose3D's decoder, see :mod:`cellrt.runtime.decoders.flows`."""

    def __init__(self, parameters: FlowParameters) -> None:
        self.parameters = parameters

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        from cellrt.runtime.flow_targets import tanh_flow

        cells = np.zeros((12, 12, 26), np.int32)
        cells[1:11, 1:11, 1:12] = 1
        cells[1:11, 1:11, 13:25] = 2
        flow = tanh_flow(cells).astype(np.float16)
        foreground = (cells > 0).astype(np.float16)
        labels = self.decode(flow, foreground, mode="fast")
        self.upsample(labels, flow, foreground, (13, 13, 27))

    def decode(
        self, flow: NDArray[Any], foreground: NDArray[Any], *, mode: Literal["fast", "exact"]
    ) -> NDArray[np.int32]:
        """Trace, label and filter; see :func:`~cellrt.runtime.decoders.flows.decode_flows`."""
        from cellrt.runtime.decoders.flows import decode_flows

        return decode_flows(flow, foreground, self.parameters, mode=mode)

    def upsample(
        self,
        labels: NDArray[np.int32],
        flow: NDArray[Any],
        foreground: NDArray[Any],
        shape: tuple[int, int, int],
    ) -> NDArray[np.int32]:
        """Decode again on another grid, where every voxel needs only a step or two."""
        from cellrt.runtime.decoders.flows_trace import pack_field
        from cellrt.runtime.decoders.flows_upsample import upsample_labels

        return upsample_labels(
            labels,
            pack_field(flow, foreground),
            shape,
            step=self.parameters.step,
            threshold=self.parameters.foreground_threshold,
            walls=self.parameters.wall_thickness > 0,
        )


def decoder_for(card: ModelCard) -> Decoder:
    """Make the decoder a model card asks for.

    Raises
    ------
    InputError
        An unknown decoder, parameters it does not have, or outputs it cannot decode.
    """
    if card.decoder != "flows":
        raise InputError(f"model {card.name!r} asks for the decoder {card.decoder!r}; known: flows")
    from cellrt.runtime.decoders.flows import FlowParameters

    if card.outputs[0].channels != FLOW_OUTPUTS:
        raise InputError(
            f"model {card.name!r} has the outputs {', '.join(card.outputs[0].channels)}; "
            f"the flow decoder needs {', '.join(FLOW_OUTPUTS)}"
        )
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in card.decoder_parameters.items()
        }
        return FlowDecoder(FlowParameters(**values))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"model {card.name!r}: decoder parameters are not valid ({error}); export it again"
        ) from None
