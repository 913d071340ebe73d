"""What all benchmarks share: pages that name what made them, the machine's name, tables."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import cellrt
from cellrt.runtime.machine.hardware import this_machine

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DATA = ROOT.parent / "shared" / "data"
# What decides a figure. Pages are not among it: one run of `make benchmarks` writes many.
CODE = (
    *("cellrt", "benchmarks", "recipes", "pyproject.toml", "constraints.txt"),
    ":(exclude)recipes/*.scores.json",
)


def commit() -> str:
    """Short hash of this tree, with ``-dirty`` where its code is not what was committed."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("-dirty" if _git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode().strip()


# A long run was made by the code with which it began.
COMMIT = commit()


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Arguments of a script; refuses to measure a cellrt that is not the one beside it."""
    if not Path(cellrt.__file__).is_relative_to(ROOT):
        sys.exit(
            f"python finds cellrt in {Path(cellrt.__file__).parent}, not in {ROOT}; "
            f"run `pip install -e {ROOT}`, or set PYTHONPATH={ROOT}"
        )
    return argparse.ArgumentParser(description=(doc or "").splitlines()[0])


def machine() -> str:
    """One line on the machine, for the head of every page."""
    found = this_machine()
    extras = " ".join(found.instructions)
    return f"{found.cpu}, {found.cores} cores, {extras}, Python {found.python}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown table; numbers are shown with three digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(name: str, title: str, text: str, figures: Any) -> None:
    """Write ``docs/NAME.md`` and ``docs/NAME.json``; both name command, commit and machine."""
    made_by = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": COMMIT,
        "date": date.today().isoformat(),
        "machine": machine(),
    }
    page = f"# {title}\n\n{head(made_by)}\n\n{text}"
    (DOCS / f"{name}.md").write_text(page)
    (DOCS / f"{name}.json").write_text(
        json.dumps({"made_by": made_by, "figures": figures}, indent=1) + "\n"
    )
    print(page)


def head(made_by: dict[str, str]) -> str:
    """The line of a page that says where its figures come from."""
    return "`{command}`, commit {commit}, {date}, on {machine}.".format_map(made_by)


def figures(name: str) -> Any:
    """The raw figures of ``docs/NAME.json``; None where there is no such page yet."""
    file = DOCS / f"{name}.json"
    return json.loads(file.read_text())["figures"] if file.exists() else None


def _text(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
