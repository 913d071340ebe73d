"""Batches that are seen more than once, where a GPU takes them faster than they are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

Batch = TypeVar("Batch")

_HELD = 48  # batches to draw from, so that the uses of one lie far apart


class Echo(Iterable[Batch]):
    """Yield every batch of `batches` a number of times, mixed with others.

    Data echoing: while its uses lie apart, a batch that is seen a few times is worth nearly as
    much as a new one [1]_.

    Parameters
    ----------
    batches : iterable
        Endless, or not: at its end what is held is yielded as well.
    uses : int
        1 passes batches on as they come and holds none.
    seed : sequence of int
        Of the order.

    References
    ----------
    .. [1] D. Choi, A. Passos, C. J. Shallue, G. E. Dahl: Faster neural network training with data
       echoing, arXiv:1907.05550, 2019.
    """

    def __init__(self, batches: Iterable[Batch], uses: int, seed: tuple[int, ...]) -> None:
        self.batches = batches
        self.uses = uses
        self.seed = seed

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self.seed)
        held: list[Batch] = []
        for batch in self.batches:
            held += [batch] * self.uses
            # What is held grows by one at a time, so that the first step need not wait for it.
            room = self.uses > 1 and len(held) < _HELD * self.uses
            for _ in range(self.uses - room):
                yield _drawn(held, rng)
        while held:
            yield _drawn(held, rng)


def _drawn(held: list[Batch], rng: np.random.Generator) -> Batch:
    place = int(rng.integers(len(held)))
    held[place], held[-1] = held[-1], held[place]
    return held.pop()
