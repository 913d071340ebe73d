"""The ladder that picks an engine and says why each better one is not taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cellrt.errors import CellrtError, EngineError, InputError, ResourceError, UsageError
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import where_wanted
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import EngineSpec
from cellrt.runtime.network.engines.choice import EngineChoice, engine_of, own_errors

_ROOM = "cellrt.runtime.network.engines"
_TF32, _BF16 = frozenset({"tf32"}), frozenset({"bf16"})
_HALF, _INT8 = frozenset({"fp16", "bf16"}), frozenset({"int8"})
_ANY = _HALF | _INT8

# Best first. Measured on CPUs, OpenVINO runs these networks 2 to 10 times faster than ONNX Runtime.
_ladder: tuple[EngineSpec, ...] = (
    EngineSpec("tensorrt", f"{_ROOM}.tensorrt.engine:TENSORRT", "nvidia", True, _TF32, _ANY),
    EngineSpec(
        "tensorrt-rtx",
        f"{_ROOM}.tensorrt.engine:TENSORRT_RTX",
        "nvidia",
        True,
        _TF32,
        _ANY,
    ),
    EngineSpec("onnxruntime-cuda", f"{_ROOM}.onnxruntime_cuda", "nvidia", False, _TF32, _HALF),
    EngineSpec("openvino-gpu", f"{_ROOM}.openvino:GPU", "intel", False, _HALF, _INT8),
    EngineSpec("openvino", f"{_ROOM}.openvino:CPU", own_precisions=_BF16, file_precisions=_INT8),
    EngineSpec("onnxruntime", f"{_ROOM}.onnxruntime", own_precisions=_BF16),
)


def ladder() -> tuple[EngineSpec, ...]:
    """All engines, best first."""
    return _ladder


def engine_named(name: str) -> EngineSpec:
    """The engine of a name, in capitals or not.

    Raises
    ------
    UsageError
        There is none.
    """
    for spec in _ladder:
        if spec.name.lower() == name.lower():
            return spec
    names = ", ".join(spec.name for spec in _ladder)
    raise UsageError(f"no engine {name!r}; choose one of {names}")


def register_engine(spec: EngineSpec, before: str | None = None) -> None:
    """Add an engine from outside of this package, for this process.

    Parameters
    ----------
    spec : EngineSpec
    before : str, optional
        The engine that it is better than; without one it is taken where no other loads, or by name.

    Raises
    ------
    ValueError
        There is one of that name, or none that it could stand before.
    """
    global _ladder
    names = [known.name for known in _ladder]
    if spec.name in names:
        raise ValueError(f"there is an engine {spec.name!r} already; choose another name")
    place = len(names) if before is None else names.index(before)
    _ladder = (*_ladder[:place], spec, *_ladder[place:])


def choose_engine(
    requested: str | None = None,
    model: ModelFile | None = None,
    *,
    tile: Shape | None = None,
    precision: str = "auto",
) -> EngineChoice:
    """Pick the best engine that loads, or the one asked for.

    Parameters
    ----------
    requested : str, optional
        Obeyed or refused.
    model : ModelFile, optional
        What it shall run. Engines that cannot, or could not on an earlier run, are not taken.
    tile : (int, int, int), optional
        Of engines for one tile, instead of the one they choose.
    precision : str
        One of `PRECISIONS`.

    Raises
    ------
    UsageError
        The engine asked for is not known.
    EngineError
        The engine asked for cannot be had here, or none can. It is never replaced in silence.
    """
    if requested is None:
        return _first(_ladder, None, model, tile, precision)
    try:
        choice = engine_here(requested)
    except EngineError as error:
        raise in_vain(engine_named(requested), error.message) from error
    if model is not None:
        choice.refuse(model, tile or choice.fixed_tile(model, precision), precision)
    return choice


def engine_here(name: str) -> EngineChoice:
    """One engine as if it was asked for, with its own reason where it cannot be had.

    Raises
    ------
    UsageError
        There is none of that name.
    EngineError, ResourceError
        It cannot be had here.
    """
    spec = engine_named(name)
    with own_errors(spec):
        return EngineChoice(spec, engine_of(spec).available(asked=True), True)


def in_vain(spec: EngineSpec, reason: str) -> EngineError:
    """What to say of an engine that a user asked for and that cannot be had here.

    Parameters
    ----------
    spec : EngineSpec
    reason : str
        Its own.
    """
    why = where_wanted(reason)
    joint = "; or" if ";" in why else ";"
    instead = "to use the CPU" if spec.needs else "for the best that loads"
    return EngineError(
        f"--engine {spec.name} cannot be had here: {why}{joint} leave --engine out {instead}"
    )


def next_engine(
    failed: EngineChoice,
    error: CellrtError,
    model: ModelFile,
    tile: Shape,
    precision: str,
    *,
    remembered: bool = True,
) -> EngineChoice:
    """Choose the next engine, as one failed to load or to run a model.

    Parameters
    ----------
    failed : EngineChoice
    error : CellrtError
    model, tile, precision
        What it failed with.
    remembered : bool
        Spare later runs the engine; not where one image may be to blame.

    Raises
    ------
    CellrtError
        `error`, if the user asked for this engine or there is no other; or one that names the
        reasons of all engines that failed.
    """
    if failed.requested or not isinstance(error, EngineError | ResourceError):
        raise error
    if isinstance(error, ResourceError) and not failed.spec.needs:
        raise error
    if remembered:
        failed.remember_failure(error, model, tile, precision)
    place = [spec.name for spec in _ladder].index(failed.name) + 1
    before = replace(
        failed,
        skipped=(*failed.skipped, (failed.name, error.message)),
        warnings=(*failed.warnings, f"engine {failed.name} failed: {error.message}"),
    )
    try:
        return _first(_ladder[place:], before, model, tile, precision)
    except EngineError:
        if not failed.warnings:
            raise error from None
        reasons = "; ".join(before.warnings)
        raise EngineError(f"no engine loads {model.card.name} here: {reasons}") from error


def _first(
    specs: Sequence[EngineSpec],
    before: EngineChoice | None,
    model: ModelFile | None,
    tile: Shape | None,
    precision: str,
) -> EngineChoice:
    """The first engine that loads, and can run the model, after what is known of those before."""
    skipped = list(before.skipped) if before else []
    warnings = list(before.warnings) if before else []
    refused = False
    for spec in specs:
        try:
            with own_errors(spec):
                detail = engine_of(spec).available(asked=False)
        except CellrtError as error:
            skipped.append((spec.name, error.message))
            continue
        choice = EngineChoice(spec, detail, False, tuple(skipped), tuple(warnings))
        if model is None:
            return choice
        try:
            taken = tile or choice.fixed_tile(model, precision)
            choice.refuse(model, taken, precision)
        except InputError:  # of a file that is the user's to mend
            raise
        except CellrtError as error:
            refused, why = True, error.message
        else:
            former = choice.former_failure(model, taken, precision)
            if former is None:
                return choice
            why = f"{former}; `cellrt doctor --build` tries it again"
        skipped.append((spec.name, why))
        if spec.needs:
            warnings.append(f"engine {spec.name} is not taken: {why}")
    if refused and model is not None:
        # Those that never compute in this precision have no other reason.
        able = {spec.name for spec in _ladder if spec.declares(precision)}
        reasons = in_short([skip for skip in skipped if skip[0] in able] or skipped)
        advice = "--precision auto"
        wanted = f"no engine here computes {model.card.name} with --precision {precision}"
        instead = "" if precision == "auto" or advice in reasons else f"; use {advice}"
        raise EngineError(f"{wanted} ({reasons}){instead}")
    raise EngineError(
        f"no inference engine loads here ({in_short(skipped)}); run `pip install openvino`"
    )


def in_short(reasons: Sequence[tuple[str, str]]) -> str:
    """Engines with the reasons why they are not taken, those of one reason together.

    Parameters
    ----------
    reasons : sequence of (str, str)
        Names and reasons.

    Examples
    --------
    >>> in_short([("a", "no GPU"), ("b", "no GPU"), ("c", "not installed")])
    'a, b: no GPU; c: not installed'
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(found)}: {reason}" for reason, found in names.items())
