"""Progress for people: a bar where standard error is a terminal, else lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cellrt.errors import one_line
from cellrt.wording import in_python

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task, TaskID
    from rich.text import Text

TITLES = {
    "read": "Reading",
    "look": "Looking for defects",
    "intensity": "Measuring intensities",
    "judge": "Judging",
    "cell size": "Looking at the cells' size",
    "prepare image": "Preparing the image",
    "load": "Loading the network",
    "network": "Running the network",
    "cells": "Assembling cells",
    "measure": "Measuring",
    "write": "Writing",
    "preview": "Drawing the preview",
}


class Terminal:
    """A progress bar where standard error is a terminal, else one line a stage.

    Parameters
    ----------
    quiet : bool
        Show warnings only.
    in_python : bool
        Whether it is shown for a call from Python: warnings come as Python's then, and notes name
        parameters instead of options.
    """

    def __init__(self, *, quiet: bool = False, in_python: bool = False) -> None:
        self._quiet = quiet
        self._in_python = in_python
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def stage(self, name: str, total: int, unit: str) -> None:
        """Show that a stage begins."""
        if self._quiet:
            return
        title = TITLES.get(name, name)
        if not _on_terminal():
            self._print(f"{title} ...")
            return
        if self._bar is None:
            self._bar = _make_bar()
            self._bar.start()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(title, total=total or None, unit=unit)

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, done)

    def phase(self, name: str, share: float) -> None:
        """Show a phase of which a share, 0 to 1, is done; nothing where there is no terminal."""
        if self._quiet or not _on_terminal():
            return
        if self._bar is None:
            self._bar = _make_bar()
            self._bar.start()
        if self._task is None:
            self._task = self._bar.add_task(name, total=1.0)
        self._bar.update(self._task, description=name, completed=share)

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print a decision, or a warning, which is shown even when quiet."""
        if warning:
            if not self._in_python:
                self._print(f"warning: {text}")
        elif not self._quiet:
            self._print(f"  {in_python(text) if self._in_python else text}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        text = one_line(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif sys.stderr is not None:  # for None, print would take standard output
            print(text, file=sys.stderr, flush=True)


def _on_terminal() -> bool:
    """Whether standard error is a terminal; there may be none (pythonw)."""
    return sys.stderr is not None and sys.stderr.isatty()


def _make_bar() -> RichProgress:
    """Bar with voxels per second and remaining time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Millions of voxels per second."""

        def render(self, task: Task) -> Text:
            if not task.fields.get("unit") or not task.speed:
                return Text("")
            return Text(f"{task.speed / 1e6:.2f} M{task.fields['unit']}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
