"""What all benchmarks share: pages that name what made them, the machine's name, tables."""

from __future__ import annotations

import argparse
import json
import os
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
# Share of the processors' work that may be that of others before times mean nothing.
BUSY = 0.1


def commit() -> str:
    """Short hash of this tree, with ``-dirty`` where its code is not what was committed."""
    if told := os.environ.get("CELLRT_COMMIT"):
        return told  # of a copy without its history
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


def processor_seconds() -> tuple[float, float] | None:
    """What all processors have spent since the start, and this process with its children."""
    try:
        ticks = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    idle = {3, 4}  # idle, and waiting for a disk
    spent = sum(int(n) for place, n in enumerate(ticks) if place not in idle)
    return spent / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def share_of_others(begin: tuple[float, float] | None) -> float | None:
    """Share of the processors' work since `begin` that was not this process's; None if unknown.

    Two threads that wait for each other, as PyTorch's do, may take ten times as long beside others.
    """
    end = processor_seconds()
    if begin is None or end is None:
        return None
    spent, own = (b - a for a, b in zip(begin, end, strict=True))
    return max(0.0, 1 - own / spent) if spent > 0 else 0.0


# A long run was made by the code with which it began.
COMMIT = commit()
BEGIN = processor_seconds()


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


def made_by() -> dict[str, Any]:
    """Command, commit and machine of what this process measures."""
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": COMMIT,
        "date": date.today().isoformat(),
        "machine": machine(),
        "share_of_others": share_of_others(BEGIN),
    }


def write(
    name: str, title: str, text: str, figures: Any, source: dict[str, Any] | None = None
) -> None:
    """Write ``docs/NAME.md`` and ``docs/NAME.json``; both name command, commit and machine.

    `source` is `made_by` of the process that measured, where it was another.
    """
    source = source or made_by()
    page = f"# {title}\n\n{head(source)}\n\n{text}"
    (DOCS / f"{name}.md").write_text(page, encoding="utf-8")
    (DOCS / f"{name}.json").write_text(
        json.dumps({"made_by": source, "figures": figures}, indent=1) + "\n", encoding="utf-8"
    )
    print(page)


def head(made_by: dict[str, Any]) -> str:
    """The line of a page that says where its figures come from."""
    line = "`{command}`, commit {commit}, {date}, on {machine}".format_map(made_by)
    others = made_by["share_of_others"]
    if others is None:
        return f"{line}."
    busy = " **Its times are no measure.**" if others > BUSY else ""
    return f"{line}; {others:.0%} of the processors' work meanwhile was that of others.{busy}"


def figures(name: str) -> Any:
    """The raw figures of ``docs/NAME.json``; None where there is no such page yet."""
    file = DOCS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))["figures"] if file.exists() else None


def _text(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
