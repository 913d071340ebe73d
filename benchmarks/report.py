"""What all benchmarks share: where results go, the machine's name, tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellrt.runtime.machine.hardware import this_machine

DOCS = Path(__file__).resolve().parent.parent / "docs"
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def machine() -> str:
    """One line on the machine, for the head of every table."""
    found = this_machine()
    extras = " ".join(found.instructions)
    return f"{found.cpu}, {found.cores} cores, {extras}, Python {found.python}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown table; numbers are shown with three digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(name: str, text: str, data: Any = None) -> None:
    """Write ``docs/NAME.md``, and ``docs/NAME.json`` with the raw figures."""
    (DOCS / f"{name}.md").write_text(text)
    if data is not None:
        (DOCS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    print(text)


def _text(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
