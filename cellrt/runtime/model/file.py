"""Model files: find one by name or path, read its card and its hash without an ONNX library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrt.errors import InputError
from cellrt.runtime.model.card import METADATA_KEY, Golden, ModelCard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ZOO = Path(__file__).resolve().parents[2] / "zoo"

# Field numbers of ModelProto and StringStringEntryProto in the public onnx.proto3.
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file on disk together with the card it carries."""

    path: Path
    card: ModelCard

    @cached_property
    def sha256(self) -> str:
        """Hash of the whole file: the model's identity in run records and engine caches."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        return digest.hexdigest()


def bundled_models() -> dict[str, Path]:
    """Names and paths of the models that ship with cellrt."""
    return {path.stem: path for path in sorted(ZOO.glob("*.onnx"))}


def open_model(name_or_path: str | Path) -> ModelFile:
    """Open a bundled model by name, or any cellrt ONNX file by path.

    Parameters
    ----------
    name_or_path : str or Path
        ``"nuclei"``, or the path of a file written by ``cellrt export``.

    Raises
    ------
    InputError
        No such model, not an ONNX file, an ONNX file without a cellrt card, or a card that this
        version cannot read.
    """
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        path = bundled[str(name_or_path)]
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(
                f"no model {str(name_or_path)!r}: neither bundled ({', '.join(bundled) or 'none'}) "
                "nor a file; run `cellrt models`, or give the path of an exported .onnx file"
            )
    metadata = read_metadata(path)
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{path.name} is an ONNX file without a cellrt model card; "
            "export the network with `cellrt export` so that it describes itself"
        )
    return ModelFile(path, ModelCard.from_json(metadata[METADATA_KEY], origin=path.name))


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


def golden_input(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Make the input whose output hash a card stores.

    Returns
    -------
    ndarray, float32, shape (1, 1, z, y, x)
        Smooth, exactly representable values in 0..1 from integer arithmetic, the same on every
        machine.
    """
    import numpy as np

    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    wave = (z * 37 + y * 17 + x * 11) % 64 + (z * y + y * x + z * x) % 64
    return np.ascontiguousarray(wave[None, None].astype(np.float32) / 128)


def golden_difference(golden: Golden, infer: Callable[[Any], Any]) -> float:
    """Largest difference between the mean of an output channel and the one a card stores."""
    import numpy as np

    means = infer(golden_input(golden.shape)).mean(axis=(0, 2, 3, 4))
    return float(np.abs(means - golden.output_mean).max())


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
