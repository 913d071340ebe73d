"""The ladder that picks an engine and says why each better one is not taken."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from cellrt.errors import EngineError, UsageError
from cellrt.geometry import Shape
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import Engine, Session
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS

# Best first. Measured on CPUs, OpenVINO runs these networks 2 to 10 times faster than ONNX Runtime.
NVIDIA_ENGINES = (*FLAVOURS, "onnxruntime-cuda")
LADDER = (*NVIDIA_ENGINES, "openvino-gpu", "openvino", "onnxruntime")


@dataclass(frozen=True)
class EngineChoice:
    """The engine that will run, and why each better one does not."""

    name: str
    detail: str
    requested: bool
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        """One line for people and for the run record."""
        chosen = "as asked" if self.requested else "the best that loads here"
        alike: dict[str, list[str]] = {}
        for name, reason in self.skipped:
            alike.setdefault(reason, []).append(name)
        notes = "".join(f"; {', '.join(names)} skipped: {why}" for why, names in alike.items())
        return f"{self.name} ({self.detail}), {chosen}{notes}"

    @property
    def spares_gpu(self) -> bool:
        """Whether the user asked for an engine that leaves an NVIDIA GPU alone."""
        return self.requested and self.name not in NVIDIA_ENGINES

    def fixed_tile(self, model: ModelFile) -> Shape | None:
        """The tile (z, y, x) for which engines are built; None where any tile will do."""
        return model.card.tile if self.name in FLAVOURS else None

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
        """
        own = self.name in FLAVOURS or (self.name, precision) == ("openvino-gpu", "fp16")
        if precision in ("fp16", "int8") and not own:
            if precision != model.card.precision:
                raise EngineError(
                    f"{self.name} computes in the precision of the file, {model.card.precision}; "
                    f"export the model with --precision {precision}, or use --precision auto"
                )
            precision = "auto"
        return _engine(self.name).load(model, tile, precision=precision, note=note)


def choose_engine(requested: str | None = None) -> EngineChoice:
    """Pick the best engine that loads, or the one asked for.

    Raises
    ------
    UsageError
        The engine asked for is not known.
    EngineError
        The engine asked for cannot be had here, or none can. It is never replaced in silence.
    """
    if requested is not None:
        if requested not in LADDER:
            raise UsageError(f"no engine {requested!r}; choose one of {', '.join(LADDER)}")
        return EngineChoice(requested, _engine(requested).available(asked=True), requested=True)
    skipped: list[tuple[str, str]] = []
    for name in LADDER:
        try:
            detail = _engine(name).available(asked=False)
        except EngineError as error:
            skipped.append((name, str(error)))
            continue
        return EngineChoice(name, detail, requested=False, skipped=tuple(skipped))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
    raise EngineError(f"no inference engine loads here ({reasons}); run `pip install openvino`")


def _engine(name: str) -> Engine:
    if name in FLAVOURS:
        from cellrt.runtime.network.engines.tensorrt.session import TensorRTEngine

        return TensorRTEngine(name, _cpu_session)
    if name.startswith("openvino"):
        from cellrt.runtime.network.engines.openvino import OpenVinoEngine

        return OpenVinoEngine("GPU" if name == "openvino-gpu" else "CPU")
    module: Engine = importlib.import_module(
        f"cellrt.runtime.network.engines.{name.replace('-', '_')}"
    )
    return module


def _cpu_session(model: ModelFile, tile: Shape) -> Session:
    """What a new engine is compared with."""
    return choose_engine("openvino").load(model, tile, "fp32")
