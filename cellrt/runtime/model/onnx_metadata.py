"""The metadata of an ONNX file, read without an ONNX library."""

from __future__ import annotations

from pathlib import Path

from cellrt.errors import InputError
from cellrt.runtime.model.protobuf import entry, fields

# Field numbers of ModelProto in the public onnx.proto3.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14


def read_metadata(path: Path) -> dict[str, str]:
    """Read ``metadata_props`` of an ONNX file.

    Only the outermost protobuf message is walked and the graph is skipped unread, so this costs
    neither an ONNX library nor the time to load the weights.

    Raises
    ------
    InputError
        The file is not an ONNX model, or is truncated.
    """
    metadata: dict[str, str] = {}
    seen = set()
    try:
        for number, value, _ in fields(memoryview(path.read_bytes())):
            seen.add(number)
            if number == _METADATA_PROPS and isinstance(value, memoryview):
                key, text = entry(value)
                metadata[key] = text
    except (IndexError, ValueError):
        raise no_onnx_model(path) from None
    if not {_IR_VERSION, _GRAPH} <= seen:
        raise no_onnx_model(path)
    return metadata


def no_onnx_model(path: Path) -> InputError:
    """The error of a file whose bytes are no ONNX model's."""
    return InputError(
        f"{path.name} is not an ONNX model, or is truncated; "
        "expected a file written by `cellrt export`"
    )
