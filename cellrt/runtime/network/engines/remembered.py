"""What was found out about engines on this machine, so that no later run pays for it again.

Each finding is a small file in the folder of engines, named by a hash of everything that it depends
on. A folder that cannot be written, or is not known, remembers nothing, and that is all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Literal

from cellrt.errors import CellrtError
from cellrt.files import write_whole
from cellrt.runtime.network.engines.tensorrt.cache import default_cache

Kind = Literal["failed", "verified"]


def recall(kind: Kind, *facts: str) -> str | None:
    """What was remembered of these facts; None where nothing was."""
    path = _path(kind, facts)
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def remember(kind: Kind, *facts: str, text: str = "") -> None:
    """Keep a text for the next run that has the same facts."""
    path = _path(kind, facts)
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode())


def forget(kind: Kind, *facts: str) -> None:
    """Let go what was remembered."""
    path = _path(kind, facts)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _path(kind: Kind, facts: tuple[str, ...]) -> Path | None:
    try:
        folder = default_cache().folder
    except CellrtError:
        return None
    return folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.{kind}"
