"""The ladder that picks an engine and says why each better one is not taken."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from cellrt.errors import EngineError, ResourceError, UsageError
from cellrt.geometry import Shape
from cellrt.limits import means_no_memory, out_of_memory
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import Engine, EngineSpec, Session

_ROOM = "cellrt.runtime.network.engines"
_ANY = frozenset({"fp16", "bf16", "int8"})
_BF16 = frozenset({"bf16"})

# Best first. Measured on CPUs, OpenVINO runs these networks 2 to 10 times faster than ONNX Runtime.
_ladder: tuple[EngineSpec, ...] = (
    EngineSpec("tensorrt", f"{_ROOM}.tensorrt.session:TENSORRT", "nvidia", True, _ANY),
    EngineSpec("tensorrt-rtx", f"{_ROOM}.tensorrt.session:TENSORRT_RTX", "nvidia", True, _ANY),
    EngineSpec("onnxruntime-cuda", f"{_ROOM}.onnxruntime_cuda", "nvidia", False, _BF16),
    EngineSpec("openvino-gpu", f"{_ROOM}.openvino:GPU", "intel", False, _BF16 | {"fp16"}),
    EngineSpec("openvino", f"{_ROOM}.openvino:CPU", own_precisions=_BF16),
    EngineSpec("onnxruntime", f"{_ROOM}.onnxruntime", own_precisions=_BF16),
)


def ladder() -> tuple[EngineSpec, ...]:
    """All engines, best first."""
    return _ladder


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
    """The engine that will run, and why each better one does not."""

    spec: EngineSpec
    detail: str
    requested: bool
    skipped: tuple[tuple[str, str], ...] = ()

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

    def fixed_tile(self, model: ModelFile) -> Shape | None:
        """The tile (z, y, x) for which engines are built; None where any tile will do."""
        return model.card.tile if self.spec.fixed_tile else None

    def device_voxels(self, model: ModelFile) -> int | None:
        """Voxels of the largest tile where the network runs in a GPU's memory; None elsewhere."""
        device_voxels = getattr(_engine(self.spec), "device_voxels", None)
        return None if device_voxels is None else cast("int | None", device_voxels(model))

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
        ResourceError
            There is too little memory for it.
        """
        if precision not in ("auto", "fp32") and precision not in self.spec.own_precisions:
            if precision != model.card.precision:
                raise EngineError(
                    f"{self.name} computes in the precision of the file, {model.card.precision}; "
                    f"export the model with --precision {precision}, or use --precision auto"
                )
            precision = "auto"
        try:
            return _engine(self.spec).load(model, tile, precision=precision, note=note)
        except (EngineError, OSError, RuntimeError) as error:
            if means_no_memory(error):
                raise ResourceError(out_of_memory()) from error
            raise

    def build_seconds(self, model: ModelFile, tile: Shape, precision: str) -> float | None:
        """How long the engine took to build that `load` would take; None where none is kept."""
        build_seconds = getattr(_engine(self.spec), "build_seconds", None)
        if build_seconds is None:
            return None
        return cast("float | None", build_seconds(model, tile, precision))


def choose_engine(requested: str | None = None) -> EngineChoice:
    """Pick the best engine that loads, or the one asked for.

    Raises
    ------
    UsageError
        The engine asked for is not known.
    EngineError
        The engine asked for cannot be had here, or none can. It is never replaced in silence.
    """
    skipped: list[tuple[str, str]] = []
    for spec in _ladder:
        if requested not in (None, spec.name):
            continue
        try:
            detail = _engine(spec).available(asked=requested is not None)
        except EngineError as error:
            if requested is not None:
                raise
            skipped.append((spec.name, error.message))
            continue
        return EngineChoice(spec, detail, requested is not None, tuple(skipped))
    if requested is not None:
        names = ", ".join(spec.name for spec in _ladder)
        raise UsageError(f"no engine {requested!r}; choose one of {names}")
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
    raise EngineError(f"no inference engine loads here ({reasons}); run `pip install openvino`")


def _engine(spec: EngineSpec) -> Engine:
    """Import an engine."""
    name, _, attribute = spec.module.partition(":")
    module = importlib.import_module(name)
    return cast(Engine, getattr(module, attribute) if attribute else module)
