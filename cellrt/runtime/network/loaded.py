"""A model in its engine, ready for tiles."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from cellrt.geometry import Shape
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.engines.ladder import EngineChoice


@dataclass
class LoadedModel:
    """A model and the sessions it runs in, one for each shape of tile.

    Compiling a network for a shape takes longer than many an image, so the sessions that were used
    last are kept for the next image.

    Parameters
    ----------
    model : ModelFile
    choice : EngineChoice
    precision : {"auto", "fp32", "fp16", "bf16", "int8"}
    keep : int
        Sessions that stay loaded from one image to the next.
    in_use : lock
        Held while a session computes: it takes one image at a time.
    """

    model: ModelFile
    choice: EngineChoice
    precision: str = "auto"
    keep: int = 0
    _sessions: OrderedDict[Shape, Session] = field(default_factory=OrderedDict, repr=False)
    in_use: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def fixed_tile(self) -> Shape | None:
        """The tile (z, y, x) that the engine is built for; None where any tile will do."""
        return self.choice.fixed_tile(self.model)

    def session(self, tile: Shape, note: Callable[[str], None] = lambda text: None) -> Session:
        """Session for tiles of a shape (z, y, x), compiled where there is none yet.

        Raises
        ------
        EngineError
            The engine cannot compute in this precision, or cannot load the model.
        """
        if tile not in self._sessions:
            # A former one gives its memory back before this one takes its own.
            while len(self._sessions) >= max(1, self.keep):
                self._sessions.popitem(last=False)
            self._sessions[tile] = self.choice.load(self.model, tile, self.precision, note)
        self._sessions.move_to_end(tile)
        return self._sessions[tile]

    def finish(self) -> None:
        """Say that an image is done: what comes after the network needs the memory."""
        if not self.keep:
            self._sessions.clear()
