"""How the pipeline tells the outside where it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """Receives the pipeline's events; every method may do nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A stage begins that will take ``total`` units (0 when that is not known)."""
        ...

    def advance(self, done: int) -> None:
        """``done`` more units of the current stage are finished."""
        ...

    def note(self, text: str, *, warning: bool = False) -> None:
        """Tell the user something: a decision that was taken, or a warning."""
        ...


class Silent:
    """Progress that goes nowhere."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Do nothing."""

    def advance(self, done: int) -> None:
        """Do nothing."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Do nothing."""


@dataclass
class StageClock:
    """Wall-clock seconds per stage, in order, and what the user was warned of."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    def warn(self, text: str) -> None:
        """Warn the user, of each thing once."""
        if text not in self.warned:
            self.warned.add(text)
            self.progress.note(text, warning=True)

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "") -> Iterator[None]:
        """Announce a stage and time it."""
        self.progress.stage(name, total, unit)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
