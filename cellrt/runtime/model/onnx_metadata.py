"""The metadata of an ONNX file, read without an ONNX library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellrt.errors import InputError

# Field numbers of ModelProto and StringStringEntryProto in the public onnx.proto3.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_metadata(path: Path) -> dict[str, str]:
    """Read ``metadata_props`` of an ONNX file.

    Only the outermost protobuf message is walked and the graph is skipped unread, so this costs
    neither an ONNX library nor the time to load the weights.

    Raises
    ------
    InputError
        The file is not an ONNX model, or is truncated.
    """
    not_onnx = InputError(
        f"{path.name} is not an ONNX model, or is truncated; "
        "expected a file written by `cellrt export`"
    )
    data = memoryview(path.read_bytes())
    metadata: dict[str, str] = {}
    seen = set()
    try:
        for number, value in _fields(data):
            seen.add(number)
            if number == _METADATA_PROPS and isinstance(value, memoryview):
                entry = {
                    n: bytes(v).decode() for n, v in _fields(value) if isinstance(v, memoryview)
                }
                metadata[entry.get(1, "")] = entry.get(2, "")
    except (IndexError, ValueError):
        raise not_onnx from None
    if not {_IR_VERSION, _GRAPH} <= seen:
        raise not_onnx
    return metadata


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of one protobuf message; raise ValueError where it is none."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if number == 0 or position + length > end:
            raise ValueError("not a protobuf message")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Read a base-128 integer; return it and the position behind it."""
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
