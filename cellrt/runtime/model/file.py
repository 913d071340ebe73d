"""Model files: find one by name or path, read its card and its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cellrt.errors import InputError, UsageError
from cellrt.files import refuse_special
from cellrt.runtime.model.card import METADATA_KEY, PRECISIONS, ModelCard
from cellrt.runtime.model.onnx_metadata import read_metadata
from cellrt.runtime.model.shared_weights import outdated, whole_file

ZOO = Path(__file__).resolve().parents[2] / "zoo"

DEFAULT = "nuclei"
DEFAULT_2D = "nuclei2d"
"""Of images of one slice, as soon as it is bundled."""
VIEWS_2D = "nuclei-cellpose2d"
"""The same network for stacks, see `ModelFile.in_views`."""


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file on disk together with the card it carries."""

    path: Path
    card: ModelCard

    @cached_property
    def sha256(self) -> str:
        """Hash of `content`: the model's identity in run records and engine caches.

        That of the file where it has all its weights.
        """
        return hashlib.sha256(self.content).hexdigest()

    @property
    def content(self) -> bytes:
        """The file with all its weights, as engines take it; see `whole_file`."""
        return whole_file(self.path, self.card)

    @cached_property
    def _opened(self) -> dict[Path, ModelFile]:
        """Variants that were looked at, whose hashes are known."""
        return {}

    @property
    def is_bundled(self) -> bool:
        """Whether it ships with cellrt."""
        return self.path in bundled_models().values()

    def variant_path(self, precision: str) -> Path:
        """Where the same model in another precision is, if it is anywhere: beside this file."""
        return self.path.with_name(f"{self.path.stem}.{precision}.onnx")

    def variant(self, precision: str) -> ModelFile | None:
        """The same model in another precision; None where there is none beside this file.

        Raises
        ------
        InputError
            The file there cannot be read, or is not what `cellrt export` made of this one.
        """
        path = self.variant_path(precision)
        if not path.is_file():
            return None
        found = self._opened.get(path) or self._opened.setdefault(path, open_model(path))
        if (found.card.made_from, found.card.precision) != (self.sha256, precision):
            raise outdated(path, self.path, precision)
        return found.in_views() if self.card.views else found

    def variants(self) -> list[ModelFile]:
        """The same model in other precisions, as far as there are files beside this one."""
        found = (self.variant(name) for name in PRECISIONS if name != self.card.precision)
        return [file for file in found if file is not None]

    def in_views(self) -> ModelFile:
        """The same network as a model of stacks, which it sees in planes along all three axes.

        Its own scores and its confidence are of single slices, and nobody's then.

        Raises
        ------
        UsageError
            The network does not look at single planes, or says nothing of flow in them.
        """
        card = self.card
        if card.views:
            return self
        if not card.planar or not card.predicts_flows:
            raise UsageError(
                f"--views cannot be asked for: model {card.name!r} is none of single slices with "
                "flows; leave it out, or give a --model that `cellrt train` made with the method "
                "cellpose2d"
            )
        of_stacks = replace(
            card,
            name=f"{card.name.removesuffix('2d')}-cellpose2d",
            summary=f"Stacks, of which {card.name} sees planes along all three axes",
            planar=False,
            two_dimensional=False,
            views=True,
            confidence=None,
            scores=(),
        )
        return ModelFile(self.path, of_stacks)


def bundled_models() -> dict[str, Path]:
    """Names and paths of the models that ship with cellrt, in fp32."""
    return {path.stem: path for path in sorted(ZOO.glob("*.onnx")) if "." not in path.stem}


def bundled_names() -> list[str]:
    """Names under which models ship with cellrt; two may share one file."""
    found = bundled_models()
    return [*found, VIEWS_2D] if DEFAULT_2D in found else list(found)


def open_model(name_or_path: str | Path) -> ModelFile:
    """Open a bundled model by name, or any cellrt ONNX file by path.

    Parameters
    ----------
    name_or_path : str or Path
        ``"nuclei"``, or the path of a file written by ``cellrt export``.

    Raises
    ------
    InputError
        No such model, not an ONNX file, an ONNX file without a cellrt card, a card that this
        version cannot read, or weights in another file that is not there or has changed.
    """
    bundled = bundled_models()
    if str(name_or_path) == VIEWS_2D and DEFAULT_2D in bundled:
        return open_model(DEFAULT_2D).in_views()
    if str(name_or_path) in bundled:
        path = bundled[str(name_or_path)]
    else:
        path = Path(name_or_path)
        refuse_special(path, "give an .onnx file")
        if not path.is_file():
            raise InputError(
                f"no model {str(name_or_path)!r}: neither bundled "
                f"({', '.join(bundled_names()) or 'none'}) nor a file; run "
                "`cellrt models`, or give the path of an exported .onnx file"
            )
    metadata = read_metadata(path)
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{path.name} is an ONNX file without a cellrt model card; "
            "export the network with `cellrt export` so that it describes itself"
        )
    card = ModelCard.from_json(metadata[METADATA_KEY], origin=path.name)
    whole_file(path, card)  # refuses what lacks weights, before anything depends on them
    return ModelFile(path, card)
