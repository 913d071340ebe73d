"""Decoders: from a network's fields to labels. One module per family, chosen by the model card."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError, UsageError

if TYPE_CHECKING:
    from cellrt.runtime.card import ModelCard
    from cellrt.runtime.decoders.class_map_baselines import DbscanParameters, WatershedParameters
    from cellrt.runtime.decoders.flows import FlowParameters
    from cellrt.runtime.decoders.supervoxels import TascanParameters

Shape = tuple[int, int, int]
Mode = Literal["fast", "exact"]

FLOW_OUTPUTS = ("flow_z", "flow_y", "flow_x", "foreground")
CLASS_OUTPUTS = ("background", "membrane", "foreground")


class Decoder(Protocol):
    """A decoder with its parameters set, and how it keeps a network's fields meanwhile.

    Merged fields arrive block by block and are reduced to what the decoder needs, so that no more
    than that is in memory for the whole volume.

    Attributes
    ----------
    name : str
        What cards and ``--decoder`` call it.
    parameters : dataclass
        What it was made with.
    modes : tuple of {"fast", "exact"}
        Modes that :meth:`decode` knows.
    kept_bytes, working_bytes, promised_bytes : int
        Memory per voxel: of the kept fields, of all that is alive while decoding, and what a whole
        run promises to stay within besides 1 GB.
    """

    name: str
    parameters: Any
    modes: tuple[Mode, ...]
    kept_bytes: int
    working_bytes: int
    promised_bytes: int

    def warm_up(self) -> None:
        """Compile every kernel, so that a first run can do it while the network computes."""
        ...

    def empty(self, shape: Shape) -> NDArray[Any]:
        """Room for the fields of a volume (z, y, x) on the model's grid."""
        ...

    def store(self, kept: NDArray[Any], z: slice, y: slice, fields: NDArray[np.float32]) -> None:
        """Keep a merged block of fields, shape (channels, depth, height, x)."""
        ...

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Labels (z, y, x) on the model's grid."""
        ...

    def upsample(
        self, labels: NDArray[np.int32], kept: NDArray[Any], shape: Shape
    ) -> NDArray[np.int32]:
        """Labels on a grid of another shape that covers the same volume."""
        ...

    def agreement(self, labels: NDArray[np.int32], kept: NDArray[Any]) -> float:
        """How well the cells explain the fields they came from, 0 to 1."""
        ...


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


class ClassMapDecoder:
    """What decoders of class maps share; see :mod:`cellrt.runtime.class_map`.

    The most probable of background, membrane and foreground is kept as one byte per voxel.
    """

    modes: tuple[Mode, ...] = ("fast",)
    kept_bytes = 1

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        from cellrt.runtime.class_map import class_map_of

        cells = np.zeros((12, 12, 26), np.int32)
        cells[1:11, 1:11, 1:12] = 1
        cells[1:11, 1:11, 12:25] = 2
        kept = class_map_of(cells)
        self.upsample(self.decode(kept, mode="fast"), kept, (13, 13, 27))

    def empty(self, shape: Shape) -> NDArray[np.uint8]:
        """Room for a class map."""
        return np.empty(shape, np.uint8)

    def store(self, kept: NDArray[Any], z: slice, y: slice, fields: NDArray[np.float32]) -> None:
        """Keep the most probable class; of equally probable ones the first."""
        background, membrane, foreground = fields
        classes = kept[z, y]
        np.greater(membrane, background, out=classes, casting="unsafe")
        classes[foreground > np.maximum(background, membrane)] = 2

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Labels on the model's grid."""
        raise NotImplementedError

    def upsample(
        self, labels: NDArray[np.int32], kept: NDArray[Any], shape: Shape
    ) -> NDArray[np.int32]:
        """Interpolate the cells' masks; classes say nothing between voxels."""
        from cellrt.runtime.decoders.labels_upsample import upsample_masks

        return upsample_masks(labels, shape)

    def agreement(self, labels: NDArray[np.int32], kept: NDArray[Any]) -> float:
        """Dice coefficient of the predicted membranes and those that the cells would have.

        Membranes that divide no cells, that are thicker than a perfect network's, or that are
        missing between cells all lower it; that of interiors would be high for cells of any size.
        """
        from cellrt.runtime.class_map import MEMBRANE, class_map_of

        predicted, expected = kept == MEMBRANE, class_map_of(labels) == MEMBRANE
        total = np.count_nonzero(predicted) + np.count_nonzero(expected)
        return 2 * np.count_nonzero(predicted & expected) / total if total else 0.0


class SupervoxelDecoder(ClassMapDecoder):
    """3DCellSeg's decoder TASCAN, see :mod:`cellrt.runtime.decoders.supervoxels`."""

    name = "tascan"
    working_bytes, promised_bytes = 5, 8

    def __init__(self, parameters: TascanParameters) -> None:
        self.parameters = parameters

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Cluster supervoxels that touch in a large area."""
        from cellrt.runtime.decoders.supervoxels import decode_supervoxels

        return decode_supervoxels(kept, self.parameters)


class WatershedDecoder(ClassMapDecoder):
    """Seeded watershed, see :func:`~cellrt.runtime.decoders.class_map_baselines.decode_watershed`.

    Memory per voxel was measured, see docs/tascan.md.
    """

    name = "watershed"
    working_bytes, promised_bytes = 64, 128

    def __init__(self, parameters: WatershedParameters) -> None:
        self.parameters = parameters

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Flood the distance transform from its maxima."""
        from cellrt.runtime.decoders.class_map_baselines import decode_watershed

        return decode_watershed(kept, self.parameters)


class DbscanDecoder(ClassMapDecoder):
    """DBSCAN on voxels, see :func:`~cellrt.runtime.decoders.class_map_baselines.decode_dbscan`.

    Memory per voxel was measured, see docs/tascan.md.
    """

    name = "dbscan"
    working_bytes, promised_bytes = 400, 800

    def __init__(self, parameters: DbscanParameters) -> None:
        self.parameters = parameters

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Cluster the coordinates of the foreground's voxels."""
        from cellrt.runtime.decoders.class_map_baselines import decode_dbscan

        return decode_dbscan(kept, self.parameters)


def _flows(values: dict[str, Any]) -> Decoder:
    from cellrt.runtime.decoders.flows import FlowParameters

    return FlowDecoder(FlowParameters(**values))


def _tascan(values: dict[str, Any]) -> Decoder:
    from cellrt.runtime.decoders.supervoxels import TascanParameters

    return SupervoxelDecoder(TascanParameters(**values))


def _watershed(values: dict[str, Any]) -> Decoder:
    from cellrt.runtime.decoders.class_map_baselines import WatershedParameters

    return WatershedDecoder(WatershedParameters(**values))


def _dbscan(values: dict[str, Any]) -> Decoder:
    from cellrt.runtime.decoders.class_map_baselines import DbscanParameters

    return DbscanDecoder(DbscanParameters(**values))


_DECODERS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Decoder]]] = {
    "flows": (FLOW_OUTPUTS, _flows),
    "tascan": (CLASS_OUTPUTS, _tascan),
    "watershed": (CLASS_OUTPUTS, _watershed),
    "dbscan": (CLASS_OUTPUTS, _dbscan),
}


def decoder_for(
    card: ModelCard, name: str | None = None, *, min_area: int | None = None
) -> Decoder:
    """Make the decoder a model card asks for, or another that fits the model's outputs.

    Parameters
    ----------
    card : ModelCard
    name : str, optional
        The user's choice instead of the card's; it runs with its own default parameters.
    min_area : int, optional
        The user's choice instead of the card's, for decoders that have it.

    Raises
    ------
    InputError
        A card with an unknown decoder or parameters it does not have, or a decoder that the
        outputs do not fit.
    UsageError
        A name that is no decoder's, a `min_area` below 1 or for a decoder that has none.
    """
    chosen = name or card.decoder
    if chosen not in _DECODERS:
        known = ", ".join(_DECODERS)
        if name:
            raise UsageError(f"no decoder {name!r}; choose one of {known}")
        raise InputError(f"model {card.name!r} asks for the decoder {chosen!r}; known: {known}")
    outputs, make = _DECODERS[chosen]
    channels = card.outputs[0].channels
    if channels != outputs:
        fitting = [other for other, (needed, _) in _DECODERS.items() if needed == channels]
        raise InputError(
            f"model {card.name!r} has the outputs {', '.join(channels)}; "
            f"the decoder {chosen!r} needs {', '.join(outputs)}; "
            f"decoders that fit: {', '.join(fitting) or 'none'}"
        )
    values: dict[str, Any] = {}
    if chosen == card.decoder:
        values = {
            parameter: tuple(value) if isinstance(value, list) else value
            for parameter, value in card.decoder_parameters.items()
        }
    if min_area is not None:
        if chosen != SupervoxelDecoder.name:
            raise UsageError(
                f"--min-area is for the decoder {SupervoxelDecoder.name}, not for {chosen}"
            )
        if min_area < 1:
            raise UsageError(f"--min-area must be at least 1 voxel face, is {min_area}")
        values["min_area"] = min_area
    try:
        return make(values)
    except (TypeError, ValueError, InputError) as error:
        raise InputError(
            f"model {card.name!r}: decoder parameters are not valid ({error}); export it again"
        ) from None
