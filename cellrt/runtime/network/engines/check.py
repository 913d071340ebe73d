"""Whether an engine loads here, computes what a model's card says, and how fast it is."""

from __future__ import annotations

from dataclasses import dataclass

from cellrt.errors import EngineError
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_difference
from cellrt.runtime.network.engines.ladder import choose_engine, ladder
from cellrt.runtime.network.engines.speed import network_speed
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS
from cellrt.runtime.network.engines.tensorrt.provide import choose_builder


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
        Largest difference between a channel's mean and the card's, in fp32.
    voxels_per_second : float
        Network alone, with ``auto``, on a small tile.
    """

    name: str
    works: bool
    detail: str
    precision: str = ""
    difference: float = 0.0
    voxels_per_second: float = 0.0


def check_engines(model: ModelFile) -> list[EngineCheck]:
    """Check every engine of the ladder with one model, best first."""
    return [_check(spec.name, model) for spec in ladder()]


def check_builders() -> list[EngineCheck]:
    """Check what `cellrt build` can build with here, and for which GPUs."""
    checks = []
    for name in FLAVOURS:
        try:
            builder = choose_builder(name)
        except EngineError as error:
            checks.append(EngineCheck(name, False, error.message))
            continue
        targets = f": {', '.join(builder.library.targets)}" if builder.library.targets else ""
        detail = f"{builder.library.version} builds for {builder.words}{targets}"
        checks.append(EngineCheck(name, True, detail))
    return checks


def _check(name: str, model: ModelFile) -> EngineCheck:
    try:
        choice = choose_engine(name)
        golden = model.card.golden
        difference = 0.0
        # An engine for one tile is compared with the CPU on that tile, when it is first loaded.
        if golden is not None and choice.fixed_tile(model) is None:
            session = choice.load(model, golden.shape, "fp32")
            difference = golden_difference(golden, session.infer)
            if not difference <= golden.tolerance:
                return EngineCheck(
                    name,
                    False,
                    f"{choice.detail} computes something else than the model's card says: means "
                    f"differ by {difference:.2g}, at most {golden.tolerance:g} is expected; "
                    "reinstall it, or use another --engine",
                    difference=difference,
                )
        speed, precision = network_speed(choice, model, "auto")
    except EngineError as error:
        return EngineCheck(name, False, error.message)
    return EngineCheck(name, True, choice.detail, precision, difference, speed)
