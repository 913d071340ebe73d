"""What the command line shows while it works: a bar or lines for people, JSON for machines."""

from __future__ import annotations

import json
import time
from typing import Any

from cellrt.runtime.progress_bar import Terminal

__all__ = ["JsonEvents", "Terminal"]


class JsonEvents:
    """One JSON object a line on standard output."""

    def __init__(self) -> None:
        self._stage, self._done, self._total, self._begin = "", 0, 0, 0.0

    def emit(self, event: str, **fields: Any) -> None:
        """Print one event, in ASCII: whatever the terminal is, no letter is lost."""
        print(json.dumps({"event": event, **fields}), flush=True)

    def stage(self, name: str, total: int, unit: str) -> None:
        """Print that a stage begins."""
        self._stage, self._done, self._total, self._begin = name, 0, total, time.perf_counter()
        self.emit("stage", name=name, total=total, unit=unit)

    def advance(self, done: int) -> None:
        """Print how far the stage is, its speed per second and the seconds that remain."""
        self._done += done
        rate = self._done / max(1e-9, time.perf_counter() - self._begin)
        remaining = (self._total - self._done) / rate if rate else None
        self.emit(
            "progress",
            stage=self._stage,
            done=self._done,
            total=self._total,
            per_second=round(rate),
            remaining_seconds=None if remaining is None else round(remaining, 1),
        )

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print a decision or a warning."""
        self.emit("warning" if warning else "note", text=text)
