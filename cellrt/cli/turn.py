"""Events of an image that is computed while the ones before it are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellrt.runtime.progress import Progress


class Turn:
    """Progress of which nobody is told before its turn has come, and then all of it in order.

    Parameters
    ----------
    events : Progress
        Who is told.
    of : str
        What warnings begin with.
    """

    def __init__(self, events: Progress, of: str = "") -> None:
        self._events, self._of = events, of
        self._waiting: list[Callable[[], None]] | None = []
        self._lock = threading.Lock()  # between who computes and who says that the turn has come

    def come(self) -> None:
        """Tell what there is; from now on nothing waits."""
        with self._lock:
            waiting, self._waiting = self._waiting or [], None
            for tell in waiting:
                tell()

    def stage(self, name: str, total: int, unit: str) -> None:
        """A stage begins."""
        self._tell(lambda: self._events.stage(name, total, unit))

    def advance(self, done: int) -> None:
        """Some units are finished."""
        self._tell(lambda: self._events.advance(done))

    def note(self, text: str, *, warning: bool = False) -> None:
        """A decision or a warning."""
        text = self._of + text if warning else text
        self._tell(lambda: self._events.note(text, warning=warning))

    def _tell(self, event: Callable[[], None]) -> None:
        with self._lock:
            if self._waiting is None:
                event()
            else:
                self._waiting.append(event)
