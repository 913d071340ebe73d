"""How far a run is, in steps or minutes, and the learning rate that belongs to it."""

from __future__ import annotations

import math
import time

from cellrt.training.recipe import OptimTable


class Progress:
    """Share of a run that is done: the larger of its share of steps and of minutes.

    A run bounded by minutes anneals as properly as one bounded by steps, on any machine. The
    seconds survive in the checkpoint, so a resumed run continues where it was killed.
    """

    def __init__(self, table: OptimTable) -> None:
        self.table = table
        self.seconds_before = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds trained, over all resumed parts."""
        now = 0.0 if self._started is None else time.monotonic() - self._started
        return self.seconds_before + now

    def share(self, step: int) -> float:
        """Return 0 at the start and 1 when the run is over."""
        shares = [0.0]
        if self.table.max_steps is not None:
            shares.append(step / self.table.max_steps)
        if self.table.max_minutes is not None:
            shares.append(self.seconds / (60 * self.table.max_minutes))
        return min(1.0, max(shares))


def learning_rate(share: float, table: OptimTable) -> float:
    """Return the learning rate: a linear rise, then half a cosine down.

    Parameters
    ----------
    share : float
        How much of the run is done, 0 to 1.
    table : OptimTable
    """
    if share < table.warmup:
        return table.learning_rate * (0.05 + 0.95 * share / table.warmup)
    rest = (share - table.warmup) / max(1e-9, 1 - table.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
    return table.final_learning_rate + (table.learning_rate - table.final_learning_rate) * cosine
