"""Model files: find one by name or path, read its card and its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cellrt.errors import InputError
from cellrt.files import refuse_special
from cellrt.runtime.model.card import METADATA_KEY, ModelCard
from cellrt.runtime.model.onnx_metadata import read_metadata

ZOO = Path(__file__).resolve().parents[2] / "zoo"


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
        refuse_special(path, "give an .onnx file")
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
