"""Run a kernel that releases the interpreter's lock over the parts of a range, on all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy.typing as npt

from cellrt.limits import usable_cores

Result = TypeVar("Result")


def copy_in_threads(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy an array onto another of its shape; fresh memory is first touched by all cores."""

    def part(first: int, last: int) -> None:
        target[first:last] = source[first:last]

    in_threads(len(target), part, voxels=target.size)


def in_threads(
    count: int, work: Callable[[int, int], Result], *, voxels: int, smallest: int = 1 << 18
) -> list[Result]:
    """Run ``work(lo, hi)`` over a partition of ``range(count)`` and return the parts' results.

    Plain threads do for kernels compiled with ``nogil`` what numba's ``parallel=True`` does,
    without its compile time of several seconds per kernel.

    Parameters
    ----------
    count : int
        Length of the range.
    work : callable
        Called with the bounds of each part; the parts are disjoint, in order, and cover the range.
    voxels : int
        Voxels touched in all; a call that touches fewer than `smallest` per core starts no thread.
    smallest : int
        Fewest voxels worth a thread.

    Returns
    -------
    list
        What the calls returned, in the order of the parts.
    """
    parts = min(count, max(1, voxels // smallest))
    if parts > 1:
        parts = min(parts, usable_cores().number)
    if parts <= 1:
        return [work(0, count)]
    # More parts than threads even out slabs with unequal amounts of foreground.
    pieces = min(count, 4 * parts)
    edges = [count * i // pieces for i in range(pieces + 1)]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))
