"""Whether an engine loads here, computes what a model's card says, and how fast it is."""

from __future__ import annotations

from dataclasses import dataclass

from cellrt.errors import CellrtError, EngineError, first_line
from cellrt.runtime.machine.apart import call_apart
from cellrt.runtime.machine.driver import nvidia_gpus
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_difference
from cellrt.runtime.network.engines.base import EngineSpec
from cellrt.runtime.network.engines.ladder import engine_here, engine_named, ladder, register_engine
from cellrt.runtime.network.engines.speed import probe_tile, session_speed
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS
from cellrt.runtime.network.engines.tensorrt.provide import choose_builder

# TensorRT-RTX finishes an engine for the card when it is first loaded, in up to half a minute.
_MOST_SECONDS, _MOST_SECONDS_TO_BUILD = 180, 3600


@dataclass(frozen=True)
class EngineCheck:
    """What was found out about one engine.

    Parameters
    ----------
    name : str
    works : bool
        It loads and reproduces the reference output of the model.
    detail : str
        Library, version and device; or what is wrong and what to do.
    precision : str
        What ``auto`` computes in; empty where the engine does not work.
    difference : float
        Largest difference between a channel's mean and the card's, in fp32 where the file is.
    voxels_per_second : float
        Network alone, with ``auto``, on a small tile.
    tried : bool
        Whether it was loaded with the model. Not where it cannot be had, nor where that would take
        minutes of building: then `works` says that its library loads, and more is not known.
    """

    name: str
    works: bool
    detail: str
    precision: str = ""
    difference: float = 0.0
    voxels_per_second: float = 0.0
    tried: bool = False


def check_engines(
    model: ModelFile, *, build: bool = False, only: str | None = None
) -> list[EngineCheck]:
    """Check every engine of the ladder with one model, best first.

    Those that would use an NVIDIA GPU which is here are checked in a process of their own: where
    driver and library do not fit, a library crashes as often as it complains.

    Parameters
    ----------
    model : ModelFile
    build : bool
        Build what is missing, which takes minutes; otherwise an engine that is not built is only
        said to load.
    only : str, optional
        Check this one alone.

    Raises
    ------
    UsageError
        There is no engine of this name.
    """
    gpus, _ = nvidia_gpus()
    seconds = _MOST_SECONDS_TO_BUILD if build else _MOST_SECONDS
    checks = []
    for spec in ladder() if only is None else (engine_named(only),):
        if gpus and spec.needs == "nvidia":
            try:
                checks.append(call_apart(seconds, _check_spec, spec, model, build))
            except EngineError as error:
                checks.append(EngineCheck(spec.name, False, error.message, tried=True))
        else:
            checks.append(_check(spec.name, model, build=build))
    return checks


def _check_spec(spec: EngineSpec, model: ModelFile, build: bool) -> EngineCheck:
    """In a fresh process, which does not know engines from outside."""
    if spec not in ladder():
        register_engine(spec)
    return _check(spec.name, model, build=build)


def check_builders() -> list[EngineCheck]:
    """Check what `cellrt build` can build with here, and for which GPUs."""
    checks = []
    for name in FLAVOURS:
        try:
            builder = choose_builder(name)
        except Exception as error:  # of a library that is there and broken; the others count
            checks.append(EngineCheck(name, False, _words(error)))
            continue
        targets = f": {', '.join(builder.library.targets)}" if builder.library.targets else ""
        detail = f"{builder.library.version} builds for {builder.words}{targets}"
        checks.append(EngineCheck(name, True, detail))
    return checks


def _check(name: str, model: ModelFile, *, build: bool = False) -> EngineCheck:
    tried = False
    try:
        choice = engine_here(name)
        tile = choice.fixed_tile(model)
        choice.refuse(model, tile, "auto")
        if not build and tile is not None and choice.builds_first(model, tile, "auto"):
            if former := choice.former_failure(model, tile):
                advice = "`cellrt doctor --build` tries it again"
                return EngineCheck(name, False, f"{choice.detail}: {former}; {advice}")
            bundled = model.is_bundled
            command = f"cellrt build {model.card.name if bundled else model.path} --engine {name}"
            detail = f"{choice.detail} loads; there is no engine of {model.card.name} yet: run "
            return EngineCheck(name, True, f"{detail}`{command}`, or `segment` will")
        tried = True
        golden = model.card.golden
        difference = 0.0
        # An engine for one tile is compared with the CPU on that tile, when it is first loaded.
        if golden is not None and tile is None:
            exact = "fp32" if model.card.precision == "fp32" else "auto"
            session = choice.load(model, golden.shape, exact)
            difference = golden_difference(model.card, session.infer)
            if not difference <= golden.tolerance:
                return EngineCheck(
                    name,
                    False,
                    f"{choice.detail} computes something else than the model's card says: means "
                    f"differ by {difference:.2g}, at most {golden.tolerance:g} is expected; "
                    "reinstall it, or use another --engine",
                    difference=difference,
                    tried=True,
                )
        tile = tile or probe_tile(model)
        session = choice.load(model, tile, "auto")
        speed = session_speed(session, tile)
    except Exception as error:  # one engine that breaks says nothing of the others
        return EngineCheck(name, False, _words(error), tried=tried)
    return EngineCheck(name, True, choice.detail, session.precision, difference, speed, tried)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, CellrtError) else first_line(error)
