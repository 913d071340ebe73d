"""The ladder that picks an engine and says why each better one is not taken."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cellrt._version import __version__
from cellrt.errors import (
    CellrtError,
    EngineError,
    InputError,
    ResourceError,
    UsageError,
    first_line,
)
from cellrt.geometry import Shape
from cellrt.limits import means_no_memory, out_of_memory
from cellrt.runtime.machine.driver import nvidia_gpus
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import Engine, EngineSpec, LayerTime, Session
from cellrt.runtime.network.engines.precision import file_for
from cellrt.runtime.network.engines.remembered import forget, recall, remember

_ROOM = "cellrt.runtime.network.engines"
_TF32, _BF16 = frozenset({"tf32"}), frozenset({"bf16"})
_HALF, _INT8 = frozenset({"fp16", "bf16"}), frozenset({"int8"})
_ANY = _HALF | _INT8

# Best first. Measured on CPUs, OpenVINO runs these networks 2 to 10 times faster than ONNX Runtime.
_ladder: tuple[EngineSpec, ...] = (
    EngineSpec("tensorrt", f"{_ROOM}.tensorrt.session:TENSORRT", "nvidia", True, _TF32, _ANY),
    EngineSpec(
        "tensorrt-rtx",
        f"{_ROOM}.tensorrt.session:TENSORRT_RTX",
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
    """The engine of a name that is known."""
    return next(spec for spec in _ladder if spec.name == name)


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


@dataclass(frozen=True)
class EngineChoice:
    """The engine that will run, and why each better one does not.

    Parameters
    ----------
    spec : EngineSpec
    detail : str
        Library, version and device.
    requested : bool
        The user named it: it runs or fails, and is never replaced.
    skipped : tuple of (str, str)
        Better engines by name, each with the reason why it is not taken.
    warnings : tuple of str
        Of those, what a user should know: engines of a GPU that is here and stands idle.
    own : Engine, optional
        The engine itself where it is none of the ladder's, but comes from a file.
    """

    spec: EngineSpec
    detail: str
    requested: bool
    skipped: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    own: Engine | None = None

    @property
    def engine(self) -> Engine:
        """What loads models."""
        return self.own or _engine(self.spec)

    @property
    def name(self) -> str:
        """As ``--engine`` takes it."""
        return self.spec.name

    @property
    def reason(self) -> str:
        """One line for people and for the run record."""
        chosen = "as asked" if self.requested else "the best that loads here"
        return f"{self.name} ({self.detail}), {chosen}"

    @property
    def spares_gpu(self) -> bool:
        """Whether the user asked for an engine that leaves an NVIDIA GPU alone."""
        return self.requested and self.spec.needs != "nvidia"

    def fixed_tile(self, model: ModelFile, precision: str = "auto") -> Shape | None:
        """The tile (z, y, x) for which engines are built; None where any tile will do."""
        if not self.spec.fixed_tile:
            return None
        own = getattr(self.engine, "tile", None)
        if own is None:
            return model.card.tile
        file, left = self._asked(model, precision)
        with _own_errors(self.spec):
            return cast("Shape | None", own(file, left)) or model.card.tile

    def device_voxels(self, model: ModelFile) -> int | None:
        """Voxels of the largest tile where the network runs in a GPU's memory; None elsewhere."""
        device_voxels = getattr(self.engine, "device_voxels", None)
        if device_voxels is None:
            return None
        with _own_errors(self.spec):
            return cast("int | None", device_voxels(model))

    def refuse(self, model: ModelFile, tile: Shape | None, precision: str) -> None:
        """Refuse a model that the engine cannot run, where that is clear before it is loaded.

        Raises
        ------
        EngineError
        InputError
            The file beside the model that it would take is not of this model.
        """
        file, left = self._asked(model, precision)
        check = getattr(self.engine, "check", None)
        if check is not None:
            with _own_errors(self.spec):
                check(file, tile, left)

    def file(self, model: ModelFile, precision: str) -> ModelFile:
        """The file of a model that the engine takes; see `file_for`, which refuses what it must."""
        return file_for(model, self.spec, precision)

    def load(
        self,
        model: ModelFile,
        tile: Shape,
        precision: str,
        note: Callable[[str], None] = lambda text: None,
    ) -> Session:
        """Load a model into the chosen engine.

        Raises
        ------
        EngineError
            The engine cannot compute in this precision, or cannot load the model.
        InputError
            The file beside the model that it would take is not of this model.
        ResourceError
            There is too little memory for it.
        """
        file, left = self._asked(model, precision, note)
        self.refuse(model, tile, precision)
        with _own_errors(self.spec):
            session = self.engine.load(file, tile, precision=left, note=note)
        if self.requested and self.spec.needs:  # no other run has to be spared it any more
            forget("failed", *_facts(self.spec, self.detail, model, tile, precision))
        return session

    def instead(
        self,
        error: CellrtError,
        model: ModelFile,
        tile: Shape,
        precision: str,
        *,
        remembered: bool = True,
    ) -> EngineChoice:
        """Choose the next engine, as this one failed to load a model, and remember that.

        What has failed for want of memory, or on the CPU, where trying again costs little, is not
        remembered; nor what the caller says may be the fault of one image.

        Raises
        ------
        CellrtError
            `error`, if the user asked for this engine or there is no other; or one that names the
            reasons of all engines that failed.
        """
        if self.requested or not isinstance(error, EngineError | ResourceError):
            raise error
        if isinstance(error, ResourceError) and not self.spec.needs:
            raise error
        if remembered and isinstance(error, EngineError) and self.spec.needs:
            remember(
                "failed",
                *_facts(self.spec, self.detail, model, tile, precision),
                text=f"it failed on {date.today().isoformat()}: {error.message}",
            )
        place = [spec.name for spec in _ladder].index(self.name) + 1
        failed = replace(
            self,
            skipped=(*self.skipped, (self.name, error.message)),
            warnings=(*self.warnings, f"engine {self.name} failed: {error.message}"),
        )
        try:
            return _first(_ladder[place:], failed, model, tile, precision)
        except EngineError:
            if not self.warnings:
                raise error from None
            reasons = "; ".join(failed.warnings)
            raise EngineError(f"no engine loads {model.card.name} here: {reasons}") from error

    def former_failure(
        self, model: ModelFile, tile: Shape | None, precision: str = "auto"
    ) -> str | None:
        """When and why the engine failed to load a model; None where that is not remembered."""
        return recall("failed", *_facts(self.spec, self.detail, model, tile, precision))

    def build_seconds(self, model: ModelFile, tile: Shape, precision: str) -> float | None:
        """How long the engine took to build that `load` would take; None where none is kept."""
        build_seconds = getattr(self.engine, "build_seconds", None)
        if build_seconds is None:
            return None
        file, left = self._asked(model, precision)
        with _own_errors(self.spec):
            return cast("float | None", build_seconds(file, tile, left))

    def layers(
        self, model: ModelFile, image: NDArray[np.float32], precision: str, runs: int
    ) -> list[LayerTime]:
        """How long each layer of a network takes on tiles (n, 1, z, y, x), the mean of some runs.

        Raises
        ------
        EngineError
            The engine does not tell; or as `load`.
        """
        layers = getattr(self.engine, "layers", None)
        if layers is None:
            raise EngineError(f"{self.name} does not tell how long its layers take")
        file, left = self._asked(model, precision)
        with _own_errors(self.spec):
            return cast("list[LayerTime]", layers(file, image, left, runs))

    def _asked(
        self, model: ModelFile, precision: str, note: Callable[[str], None] = lambda text: None
    ) -> tuple[ModelFile, str]:
        """The file that the engine takes, and what is left to ask of it where that does not say."""
        file = file_for(model, self.spec, precision, note)
        return file, "auto" if file.card.precision in self.spec.file_precisions else precision

    def builds_first(self, model: ModelFile, tile: Shape, precision: str) -> bool:
        """Whether `load` would have to build an engine, as none is kept."""
        kept = getattr(self.engine, "build_seconds", None) is not None
        return kept and self.build_seconds(model, tile, precision) is None


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
    for spec in _ladder:
        if spec.name == requested:
            with _own_errors(spec):
                choice = EngineChoice(spec, _engine(spec).available(asked=True), True)
            if model is not None:
                choice.refuse(model, tile or choice.fixed_tile(model, precision), precision)
            return choice
    names = ", ".join(spec.name for spec in _ladder)
    raise UsageError(f"no engine {requested!r}; choose one of {names}")


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
            with _own_errors(spec):
                detail = _engine(spec).available(asked=False)
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
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
    if refused and model is not None:
        raise EngineError(
            f"no engine here computes {model.card.name} with --precision {precision} ({reasons})"
        )
    raise EngineError(f"no inference engine loads here ({reasons}); run `pip install openvino`")


def _facts(
    spec: EngineSpec, detail: str, model: ModelFile, tile: Shape | None, precision: str
) -> tuple[str, ...]:
    """Everything that whether an engine loads a model depends on."""
    gpus = [str(gpu) for gpu in nvidia_gpus()[0]] if spec.needs == "nvidia" else []
    of_tile = str(tile) if spec.fixed_tile else ""
    file = file_for(model, spec, precision)
    return (spec.name, detail, *gpus, file.sha256, of_tile, precision, __version__)


@contextmanager
def _own_errors(spec: EngineSpec) -> Iterator[None]:
    """Turn whatever an engine's library raises into one of our errors."""
    try:
        yield
    except CellrtError as error:
        if isinstance(error, EngineError) and means_no_memory(error):
            raise ResourceError(out_of_memory()) from error
        raise
    except Exception as error:
        if means_no_memory(error):
            raise ResourceError(out_of_memory()) from error
        raise EngineError(
            f"{spec.name} fails ({first_line(error)}); use another --engine"
        ) from error


def _engine(spec: EngineSpec) -> Engine:
    """Import an engine."""
    name, _, attribute = spec.module.partition(":")
    module = importlib.import_module(name)
    return cast(Engine, getattr(module, attribute) if attribute else module)
