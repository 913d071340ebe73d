"""How fast an engine computes a network here."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from cellrt.geometry import Shape
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.engines.gpu_session import DeviceSession, SpreadSession

# Clocks rise and kernels are chosen meanwhile.
_WARM_RUNS, _WARM_SECONDS = 3, 0.5


def probe_tile(model: ModelFile) -> Shape:
    """A tile (z, y, x) that the network computes in well below a second."""
    edge = max(model.card.multiple, 32 // model.card.multiple * model.card.multiple)
    return (edge, 2 * edge, 2 * edge)


def session_speed(session: Session, tile: Shape) -> float:
    """Time the network on one tile of the session's shape; return voxels per second."""
    image = golden_input(tile)
    session.infer(image)  # the first time allocates
    begin = time.perf_counter()
    session.infer(image)
    return image.size / (time.perf_counter() - begin)


def one_run(session: Session, tile: Shape, batch: int) -> tuple[Callable[[], object], int]:
    """What runs the network once on tiles that wait where the engine reads them, and waits for it.

    Of a session on several GPUs, the first.

    Parameters
    ----------
    session : Session
    tile : (int, int, int)
    batch : int
        Tiles at once; as many as the session takes, if those are fewer.

    Returns
    -------
    callable
    int
        Tiles at once.
    """
    one = session.sessions[0] if isinstance(session, SpreadSession) else session
    batch = min(batch, getattr(one, "largest_batch", 1))
    images = np.repeat(golden_input(tile), batch, axis=0)
    if isinstance(one, DeviceSession):
        return one.in_place(images), batch
    return lambda: one.infer(images), batch


def warm_up(run: Callable[[], object]) -> None:
    """Run what shall be timed until it is as fast as it will be."""
    begin, runs = time.perf_counter(), 0
    while runs < _WARM_RUNS or time.perf_counter() - begin < _WARM_SECONDS:
        run()
        runs += 1


def time_runs(run: Callable[[], object], runs: int, least_seconds: float = 0.0) -> list[float]:
    """Seconds of each of some runs, or of more until a time has passed."""
    seconds: list[float] = []
    begin = last = time.perf_counter()
    while len(seconds) < runs or last - begin < least_seconds:
        run()
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return seconds
