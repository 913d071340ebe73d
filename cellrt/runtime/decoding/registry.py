"""Families of decoders by name: the one a model card asks for, or another that fits its outputs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellrt.errors import CellrtError, InputError, UsageError
from cellrt.runtime.decoding.base import Decoder, Family, Outputs
from cellrt.runtime.decoding.parameters import with_values

if TYPE_CHECKING:
    from cellrt.runtime.model.card import ModelCard

# One line a family: its name and where it is, as module:attribute. Only the family that is asked
# for is imported; what it needs may be slow to load, or an extra.
_FAMILIES: dict[str, str | Family] = {
    "flows": "cellrt.runtime.decoding.flows.decoder:FLOWS",
    "tascan": "cellrt.runtime.decoding.classes.decoder:TASCAN",
    "watershed": "cellrt.runtime.decoding.classes.decoder:WATERSHED",
    "dbscan": "cellrt.runtime.decoding.classes.decoder:DBSCAN",
    "star": "cellrt.runtime.decoding.star.decoder:STAR",
    "embedding": "cellrt.runtime.decoding.embedding.decoder:EMBEDDING",
}


# Of outputs that an error lists.
_MOST_NAMES = 6


def register_family(family: Family) -> None:
    """Add a family from outside of this package, for this process.

    Raises
    ------
    ValueError
        There is one of that name.
    """
    if family.name in _FAMILIES:
        raise ValueError(f"there is a decoder {family.name!r} already; choose another name")
    _FAMILIES[family.name] = family


def family_names() -> tuple[str, ...]:
    """Names of all families."""
    return tuple(_FAMILIES)


def find_family(name: str) -> Family:
    """Look up a family.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in _FAMILIES:
        raise UsageError(f"no decoder {name!r}; choose one of {', '.join(_FAMILIES)}")
    found = _FAMILIES[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        family: Family = getattr(importlib.import_module(module), attribute)
        return family
    return found


def decoder_for(
    card: ModelCard,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    keep_to_cpu: str = "",
) -> Decoder:
    """Make the decoder a model card asks for, or another that fits the model's outputs.

    Parameters
    ----------
    card : ModelCard
    name : str, optional
        The user's choice instead of the card's; it starts from its own default parameters.
    parameters : mapping of str to Any, optional
        The user's choices instead of the card's or the default ones, by name.
    keep_to_cpu : str
        Why a GPU must not be used; empty where it may.

    Raises
    ------
    InputError
        A card with an unknown decoder or parameters it does not have, or a decoder that the
        outputs do not fit.
    UsageError
        A name that is no decoder's, parameters that it does not have or values out of range.
    """
    chosen = name or card.decoder
    if not name and chosen not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise InputError(f"model {card.name!r} asks for the decoder {chosen!r}; known: {known}")
    family = find_family(chosen)
    outputs = Outputs(card.outputs[0].channels, card.output_stride, card.guides)
    if not _fits(family, outputs):
        fitting = [other for other in _FAMILIES if _fits(find_family(other), outputs)]
        stride = f", one for {outputs.stride}³ voxels" if outputs.stride > 1 else ""
        raise InputError(
            f"model {card.name!r} has the outputs {_names(outputs.channels)}{stride}; "
            f"the decoder {chosen!r} needs {family.needs}; "
            f"decoders that fit: {', '.join(fitting) or 'none'}"
        )
    values = family.parameters()
    if chosen == card.decoder:
        try:
            values = with_values(values, card.decoder_parameters, chosen)
        except CellrtError as error:
            raise InputError(
                f"model {card.name!r}: decoder parameters are not valid ({error}); export it again"
            ) from None
    return family.make(with_values(values, parameters or {}, chosen), outputs, keep_to_cpu)


def _fits(family: Family, outputs: Outputs) -> bool:
    return family.fits(outputs.channels) and (outputs.stride == 1 or family.strided)


def _names(channels: tuple[str, ...]) -> str:
    """Names of channels, of which there may be a hundred."""
    if len(channels) <= _MOST_NAMES:
        return ", ".join(channels)
    return f"{', '.join(channels[: _MOST_NAMES - 1])}, ... {channels[-1]} ({len(channels)} in all)"
