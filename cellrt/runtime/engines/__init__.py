"""Inference engines behind one interface, and the ladder that picks one and says why.

Every engine is one module with ``available()`` and ``load()``; what ``load`` returns has ``infer``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError, UsageError
from cellrt.runtime.model_file import ModelFile

# Best first. Measured on CPUs, OpenVINO runs these networks 2 to 10 times faster than ONNX Runtime.
LADDER = ("onnxruntime-cuda", "openvino", "onnxruntime")
WITHOUT_NVIDIA = ("openvino", "onnxruntime")


class Session(Protocol):
    """A network that is loaded and ready for tiles of one shape."""

    device: str
    precision: str

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network: (n, 1, z, y, x) float32 -> (n, channels, z, y, x) float32."""
        ...


class Engine(Protocol):
    """What an engine module offers."""

    def available(self) -> str:
        """Return library, version and device, or raise EngineError with the reason why not."""
        ...

    def load(self, model: ModelFile, tile: tuple[int, int, int], *, precision: str) -> Session:
        """Load a model for tiles (z, y, x); ``precision`` is "auto", "fp32" or "bf16"."""
        ...


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
        why = "as asked" if self.requested else "the best that loads here"
        notes = "".join(f"; {name} skipped: {reason}" for name, reason in self.skipped)
        return f"{self.name} ({self.detail}), {why}{notes}"

    @property
    def spares_gpu(self) -> bool:
        """Whether the user asked for an engine that leaves an NVIDIA GPU alone."""
        return self.requested and self.name in WITHOUT_NVIDIA

    def load(self, model: ModelFile, tile: tuple[int, int, int], precision: str) -> Session:
        """Load a model into the chosen engine."""
        return _module(self.name).load(model, tile, precision=precision)


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
        return EngineChoice(requested, _module(requested).available(), requested=True)
    skipped: list[tuple[str, str]] = []
    for name in LADDER:
        try:
            detail = _module(name).available()
        except EngineError as error:
            skipped.append((name, str(error)))
            continue
        return EngineChoice(name, detail, requested=False, skipped=tuple(skipped))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
    raise EngineError(f"no inference engine loads here ({reasons}); run `pip install openvino`")


def _module(name: str) -> Engine:
    module: Engine = importlib.import_module(
        f"cellrt.runtime.engines.{name.replace('-', '_')}_engine"
    )
    return module
