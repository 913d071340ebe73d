"""Results that are there already: whether a run with the same image and options left them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrt._version import __version__
from cellrt.runtime.results.record import input_record

if TYPE_CHECKING:
    from cellrt.runtime.decoding.base import Decoder
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.job import Options
    from cellrt.runtime.model.file import ModelFile


def difference(
    paths: Mapping[str, Path], volume: Volume, model: ModelFile, options: Options, decoder: Decoder
) -> str | None:
    """What keeps results that are there from being those that would be computed now.

    Parameters
    ----------
    paths : mapping of str to Path
        All that is wanted, ``"run"`` among it.
    volume, model, options, decoder
        Of the run that would compute them.

    Returns
    -------
    str or None
        Empty where nothing does: all are there, and their record has the same image, unchanged
        since, model, options and version of cellrt. None where none is there.
    """
    missing = [path.name for path in paths.values() if not os.path.isfile(path)]
    if len(missing) == len(paths):
        return None
    if missing:
        return f"{missing[0]} is missing"
    run = paths["run"]
    try:
        record = json.loads(run.read_text(encoding="utf-8"))
        if volume.path is None or volume.path.stat().st_mtime > run.stat().st_mtime:
            return "the image is newer"
        return _other(record, volume, model, options, decoder)
    except (OSError, ValueError, LookupError, TypeError):
        return f"{run.name} is no record of this version"


def _other(
    record: dict[str, Any], volume: Volume, model: ModelFile, options: Options, decoder: Decoder
) -> str:
    if record["cellrt"] != __version__:
        return f"they are of cellrt {record['cellrt']}"
    image, theirs = _plain(input_record(volume)), dict(record["input"])
    # However the folder was called: from where the run was started, or whole.
    del image["path"], theirs["path"]
    if image != theirs:
        names = [name for name in image if image[name] != theirs.get(name)]
        return f"they are of another image ({', '.join(names)})"
    views = record["model"]["views"] is not None
    if (record["model"]["sha256"], views) != (model.sha256, bool(model.card.views)):
        return f"they are of the model {record['model']['name']}"
    found, asked = record["options"], _plain(dataclasses.asdict(options))
    # Parameters are those of the decoder, as it was made with them.
    found["decoder_parameters"] = [record["decoder"]["name"], record["decoder"]["parameters"]]
    given = _plain(dataclasses.asdict(decoder.parameters))
    asked["decoder_parameters"] = [decoder.name, given]
    names = [name for name in asked if asked[name] != found.get(name)]
    return f"they are of other options ({', '.join(names)})" if names else ""


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As a record that was written has them."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
