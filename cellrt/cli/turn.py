"""Events of an image that begins while the one before it is being finished."""

from __future__ import annotations

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
    after : callable
        Waits until the image before is finished.
    """

    def __init__(self, events: Progress, after: Callable[[], object]) -> None:
        self._events, self._after = events, after
        self._waiting: list[Callable[[], None]] | None = []

    def come(self) -> None:
        """Wait for the image before and tell what there is; from now on nothing waits."""
        if self._waiting is None:
            return
        self._after()
        waiting, self._waiting = self._waiting, None
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
        self._tell(lambda: self._events.note(text, warning=warning))

    def _tell(self, event: Callable[[], None]) -> None:
        if self._waiting is None:
            event()
        else:
            self._waiting.append(event)
