"""Model files that have weights in common: the smaller one takes them out of the larger one.

An fp16 file needs the kernels that its fp32 file stores as fp16. Instead of having them once more
it says where they are, in ONNX's own words (``external_data``: file, offset, length). Here the two
become one again, for engines and for the model's hash. Engines could follow these words themselves,
but each with rules of its own: OpenVINO and ONNX Runtime take no symbolic link that leads to
another folder, as some installations consist of; TensorRT knows no path beyond the code page of
Windows; the library `onnx` takes no file with two hard links, as `uv` installs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cellrt.errors import InputError
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.onnx_metadata import no_onnx_model
from cellrt.runtime.model.protobuf import entry, field_of, fields, messages

# Field numbers in the public onnx.proto3: of ModelProto, of GraphProto, and of TensorProto.
_GRAPH = 7
_INITIALIZER = 5
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14


def whole_file(path: Path, card: ModelCard) -> bytes:
    """Read a model file, with the weights that it takes from the file it was made of.

    Parameters
    ----------
    path : Path
        An ONNX file.
    card : ModelCard
        Of that file; `made_from` is the hash of the other one, where it was made of one.

    Returns
    -------
    bytes
        An ONNX file that needs no other: this one as it is, where it has all its weights, and else
        the bytes that it would have then.

    Raises
    ------
    InputError
        The other file is not beside it or not the one that it was made of; or this one is damaged.
    """
    data = path.read_bytes()
    message = memoryview(data)
    weights = cache(lambda location: _weights(path, location, card))
    try:
        graphs = messages(message, _GRAPH)
        if not any(_place(tensor) for graph in graphs for tensor in messages(graph, _INITIALIZER)):
            return data
        return _replaced(message, _GRAPH, lambda graph: _filled(graph, weights))
    except (IndexError, ValueError, KeyError):
        raise no_onnx_model(path) from None


def outdated(path: Path, base: Path, precision: str) -> InputError:
    """The error of a file in some precision that was made of another one than lies beside it."""
    return InputError(
        f"{path.name} is not the {precision} file of {base.name} as it is now; run "
        f"`cellrt export {base} --precision {precision} --overwrite`, or remove it"
    )


def _weights(path: Path, location: str, card: ModelCard) -> memoryview:
    """Read the file that another one takes weights from, if it is the one it was made of."""
    base = path.with_name(Path(location).name)
    if base.name != location or not base.is_file():
        whole = (
            f", or make a file that needs no other with `cellrt export {location} "
            f"--precision {card.precision} -o NAME.onnx`"
        )
        raise InputError(
            f"{path.name} takes its weights from {location}, which is not beside it; copy "
            f"{base.name} there as well{whole if card.made_from else ''}"
        )
    data = base.read_bytes()
    if card.made_from and hashlib.sha256(data).hexdigest() != card.made_from:
        raise outdated(path, base, card.precision)
    return memoryview(data)


def _place(tensor: memoryview) -> dict[str, str]:
    """Where a ``TensorProto`` says that its values are; empty where they are in it."""
    return dict(map(entry, messages(tensor, _EXTERNAL_DATA)))


def _replaced(message: memoryview, number: int, change: Callable[[memoryview], bytes]) -> bytes:
    """Encode a message anew with some of its fields changed."""
    return b"".join(
        field_of(number, change(field.value))
        if field.number == number and isinstance(field.value, memoryview)
        else field.encoded
        for field in fields(message)
    )


def _filled(graph: memoryview, weights: Callable[[str], memoryview]) -> bytes:
    """A ``GraphProto`` with all values in it."""
    return _replaced(graph, _INITIALIZER, lambda tensor: _with_values(tensor, weights))


def _with_values(tensor: memoryview, weights: Callable[[str], memoryview]) -> bytes:
    """A ``TensorProto`` with its values in it, its fields in the order of their numbers."""
    place = _place(tensor)
    if not place:
        return bytes(tensor)
    file = weights(place["location"])
    begin = int(place.get("offset", 0))
    length = int(place.get("length", len(file) - begin))
    if min(begin, length) < 0 or begin + length > len(file):
        raise ValueError("no such place")
    kept = [f for f in fields(tensor) if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION)]
    return b"".join(
        [
            *(field.encoded for field in kept if field.number < _RAW_DATA),
            field_of(_RAW_DATA, file[begin : begin + length]),
            *(field.encoded for field in kept if field.number > _RAW_DATA),
        ]
    )
