"""Decoders by name: the one a model card asks for, or another that fits its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cellrt.errors import InputError, UsageError
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.decoding.classes.decoder import (
    CLASS_OUTPUTS,
    DbscanDecoder,
    SupervoxelDecoder,
    WatershedDecoder,
)
from cellrt.runtime.decoding.flows.decoder import FLOW_OUTPUTS, FlowDecoder

if TYPE_CHECKING:
    from cellrt.runtime.model.card import ModelCard


def decoder_for(
    card: ModelCard,
    name: str | None = None,
    *,
    min_area: int | None = None,
    keep_to_cpu: str = "",
) -> Decoder:
    """Make the decoder a model card asks for, or another that fits the model's outputs.

    Parameters
    ----------
    card : ModelCard
    name : str, optional
        The user's choice instead of the card's; it runs with its own default parameters.
    min_area : int, optional
        The user's choice instead of the card's, for decoders that have it.
    keep_to_cpu : str
        Why a GPU must not be used; empty where it may.

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
        return make(values, keep_to_cpu)
    except (TypeError, ValueError, InputError) as error:
        raise InputError(
            f"model {card.name!r}: decoder parameters are not valid ({error}); export it again"
        ) from None


def _flows(values: dict[str, Any], keep_to_cpu: str) -> Decoder:
    from cellrt.runtime.decoding.flows.cells import FlowParameters

    return FlowDecoder(FlowParameters(**values), keep_to_cpu=keep_to_cpu)


def _tascan(values: dict[str, Any], keep_to_cpu: str) -> Decoder:
    from cellrt.runtime.decoding.classes.tascan import TascanParameters

    return SupervoxelDecoder(TascanParameters(**values))


def _watershed(values: dict[str, Any], keep_to_cpu: str) -> Decoder:
    from cellrt.runtime.decoding.classes.baselines import WatershedParameters

    return WatershedDecoder(WatershedParameters(**values))


def _dbscan(values: dict[str, Any], keep_to_cpu: str) -> Decoder:
    from cellrt.runtime.decoding.classes.baselines import DbscanParameters

    return DbscanDecoder(DbscanParameters(**values))


_DECODERS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], str], Decoder]]] = {
    "flows": (FLOW_OUTPUTS, _flows),
    "tascan": (CLASS_OUTPUTS, _tascan),
    "watershed": (CLASS_OUTPUTS, _watershed),
    "dbscan": (CLASS_OUTPUTS, _dbscan),
}
