"""How long an engine takes for a tile, with what energy, and which layers take the time.

All of it happens in processes of their own, as a library may crash where it should complain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellrt.errors import CellrtError
from cellrt.geometry import Shape
from cellrt.runtime.machine.apart import call_apart
from cellrt.runtime.machine.energy import LEAST_SECONDS, open_gauge
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines.base import EngineSpec, LayerTime
from cellrt.runtime.network.engines.ladder import engine_here, ladder, register_engine
from cellrt.runtime.network.engines.speed import one_run, time_runs, warm_up

_PROFILED_RUNS = 10
# TensorRT-RTX finishes an engine for the card when it is first loaded, in up to half a minute.
_SECONDS_TO_LOAD, _SECONDS_PER_RUN = 600, 60


@dataclass(frozen=True)
class TileTimes:
    """The network alone, on tiles that are where the engine reads them.

    Parameters
    ----------
    tile : (int, int, int)
    batch : int
        Tiles at once.
    runs : int
        How often they were timed.
    p50_ms, p95_ms, p99_ms : float or None
        Milliseconds per tile, that of a batch divided by its tiles. Half, 95 % and 99 % of the runs
        took no longer; None where there were too few runs to say that, 20 and 100 are needed.
    voxels_per_second : float
        Of tiles, by the mean.
    joules_per_million_voxels : float or None
        Of tiles. What the hardware used meanwhile, other programs and idling included.
    energy : str
        Of what it is the energy, and who says so; or why it is not known.
    build_seconds : float or None
        Of an engine that is built once and kept, when it was built.
    """

    tile: Shape
    batch: int
    runs: int
    p50_ms: float
    p95_ms: float | None
    p99_ms: float | None
    voxels_per_second: float
    joules_per_million_voxels: float | None
    energy: str
    build_seconds: float | None = None


def engine_trouble(spec: EngineSpec) -> str:
    """Why an engine does not load here, or that it crashes; empty where it does."""
    try:
        call_apart(_SECONDS_TO_LOAD, _load, spec)
    except CellrtError as error:
        return error.message
    return ""


def time_tiles(
    spec: EngineSpec, model: ModelFile, tile: Shape, precision: str, *, batch: int, runs: int
) -> TileTimes:
    """Time an engine on tiles, and measure the energy where something tells it.

    Parameters
    ----------
    spec : EngineSpec
    model : ModelFile
    tile : (int, int, int)
    precision : str
    batch : int
        Tiles at once; an engine that takes fewer computes those.
    runs : int
        At least; more where they are over too soon to tell the energy.

    Raises
    ------
    EngineError
        The engine cannot be had, does not load the model, or brought its process down.
    """
    seconds = _SECONDS_TO_LOAD + _SECONDS_PER_RUN * runs
    return call_apart(seconds, _time, spec, model, tile, precision, batch, runs)


def time_layers(
    spec: EngineSpec, model: ModelFile, tile: Shape, precision: str, *, batch: int
) -> list[LayerTime]:
    """Ask an engine how long each layer takes.

    Raises
    ------
    EngineError
        It does not tell, or as `time_tiles`.
    """
    seconds = _SECONDS_TO_LOAD + _SECONDS_PER_RUN * _PROFILED_RUNS
    return call_apart(seconds, _layers, spec, model, tile, precision, batch)


def _known(spec: EngineSpec) -> str:
    """Name of an engine, which a fresh process does not know where it is from outside."""
    if spec not in ladder():
        register_engine(spec)
    return spec.name


def _load(spec: EngineSpec) -> None:
    engine_here(_known(spec))


def _time(
    spec: EngineSpec, model: ModelFile, tile: Shape, precision: str, batch: int, runs: int
) -> TileTimes:
    choice = engine_here(_known(spec))
    session = choice.load(model, tile, precision)
    run, batch = one_run(session, tile, batch)
    warm_up(run)
    with contextlib.ExitStack() as held:
        try:
            gauge = held.enter_context(open_gauge(spec.needs))
        except OSError as error:
            seconds, joules, energy = time_runs(run, runs), None, f"not known: {error}"
        else:
            with gauge.measuring():
                seconds = time_runs(run, runs, LEAST_SECONDS)
            joules, energy = gauge.joules, gauge.trouble or gauge.covers
    voxels = float(np.prod(tile)) * batch * len(seconds)
    p50, p95, p99 = percentiles(seconds)
    return TileTimes(
        tile=tile,
        batch=batch,
        runs=len(seconds),
        p50_ms=p50 * 1e3 / batch,
        p95_ms=None if p95 is None else p95 * 1e3 / batch,
        p99_ms=None if p99 is None else p99 * 1e3 / batch,
        voxels_per_second=voxels / sum(seconds),
        joules_per_million_voxels=None if joules is None else joules / voxels * 1e6,
        energy=energy,
        build_seconds=choice.build_seconds(model, tile, precision),
    )


def percentiles(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """What 50, 95 and 99 % of some values do not exceed; None where they are too few for that.

    Examples
    --------
    >>> percentiles([3.0, 1.0, 2.0])
    (2.0, None, None)
    """
    p50, p95, p99 = np.percentile(values, (50, 95, 99), method="inverted_cdf").tolist()
    return p50, p95 if len(values) >= 20 else None, p99 if len(values) >= 100 else None


def _layers(
    spec: EngineSpec, model: ModelFile, tile: Shape, precision: str, batch: int
) -> list[LayerTime]:
    images = np.repeat(golden_input(tile), batch, axis=0)
    return engine_here(_known(spec)).layers(model, images, precision, _PROFILED_RUNS)
