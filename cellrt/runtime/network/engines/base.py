"""What an engine offers, and what it makes of a model.

Every engine offers ``available()`` and ``load()``; what ``load`` returns has ``infer``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.model.file import ModelFile

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")


class Session(Protocol):
    """A network that is loaded and ready for tiles of one shape."""

    device: str
    precision: str

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network: (n, 1, z, y, x) float32 -> (n, channels, z, y, x) float32."""
        ...


class Engine(Protocol):
    """What an engine module offers."""

    def available(self, *, asked: bool) -> str:
        """Return library, version and device, or raise EngineError with the reason why not.

        ``asked`` says that the user named this engine.
        """
        ...

    def load(
        self, model: ModelFile, tile: Shape, *, precision: str, note: Callable[[str], None]
    ) -> Session:
        """Load a model for tiles (z, y, x); ``precision`` is one of `PRECISIONS`.

        ``note`` is told what takes long.
        """
        ...
