"""A model in its engine, ready for tiles."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cellrt.errors import CellrtError, EngineError, first_line
from cellrt.geometry import Shape
from cellrt.limits import means_no_memory
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.engines.choice import EngineChoice
from cellrt.runtime.network.engines.ladder import next_engine
from cellrt.runtime.network.views import ViewsSession

# The process that first loaded an engine.
_process: int | None = None


def refuse_forked() -> None:
    """Refuse to run an engine in a fork of the process that has one: it would wait for ever.

    Raises
    ------
    EngineError
        The threads of the engine, of which a fork has none, are in another process.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise EngineError(
            "this process is a fork of one that has an engine, whose threads it lacks; start "
            "processes with multiprocessing.get_context('spawn'), or segment in threads"
        )


@dataclass
class LoadedModel:
    """A model and the sessions it runs in, one for each shape of tile.

    Compiling a network for a shape takes longer than many an image, so the sessions that were used
    last are kept for the next image.

    Parameters
    ----------
    model : ModelFile
    choice : EngineChoice
        Replaced by the next one where nobody asked for it and it fails to load the model.
    precision : {"auto", "fp32", "tf32", "fp16", "bf16", "int8"}
    keep : int
        Sessions that stay loaded from one image to the next.
    at_once : int
        Threads that may compute an image each at a time, on engines that can that.
    """

    model: ModelFile
    choice: EngineChoice
    precision: str = "auto"
    keep: int = 0
    at_once: int = 1
    _sessions: OrderedDict[Shape, Session] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the sessions, which another process, or a copy, loads for itself."""
        return {**self.__dict__, "_sessions": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    @property
    def in_use(self) -> AbstractContextManager[object]:
        """Held while a session computes an image, by one thread where it cannot do more."""
        several = self.at_once > 1 and self.choice.several_at_once
        return nullcontext() if several else self._lock

    @property
    def fixed_tile(self) -> Shape | None:
        """The tile (z, y, x) that the engine is built for; None where any tile will do."""
        return self.choice.fixed_tile(self.model, self.precision)

    @property
    def device_voxels(self) -> int | None:
        """Voxels of the largest tile where tiles stay in a GPU's memory; None elsewhere."""
        if self.model.card.views:  # which are put together on the host
            return None
        return self.choice.device_voxels(self.model)

    @property
    def tile_bytes(self) -> float:
        """Bytes per voxel of a tile that the engine takes of the CPU's memory, about."""
        return self.choice.tile_bytes(self.model, self.precision)

    @property
    def file(self) -> ModelFile:
        """The file that the engine takes: the model's, or the one beside it in half precision."""
        return self.choice.file(self.model, self.precision)

    def session(self, tile: Shape, note: Callable[[str], None] = lambda text: None) -> Session:
        """Session for tiles of a shape (z, y, x), compiled where there is none yet.

        Raises
        ------
        EngineError
            The engine asked for, or every one, cannot compute in this precision or load the model.
        ResourceError
            There is too little memory.
        """
        with self._lock:
            while not self.settle(tile, note):
                pass
            self._sessions.move_to_end(tile)
            return self._sessions[tile]

    def settle(self, tile: Shape, note: Callable[[str], None] = lambda text: None) -> bool:
        """Load the session for a tile, or put the next engine in the place of one that fails.

        Returns
        -------
        bool
            False where another engine has been chosen: nothing is loaded, and it may be that other
            tiles suit it.

        Raises
        ------
        EngineError, ResourceError
            As `session`.
        """
        refuse_forked()
        with self._lock:
            if tile in self._sessions:
                return True
            # A former one gives its memory back before this one takes its own.
            while len(self._sessions) >= max(1, self.keep):
                self._sessions.popitem(last=False)
            try:
                self._sessions[tile] = self._load(tile, note)
            except CellrtError as error:
                self._replace(error, tile, note, remembered=True)
                return False
            return True

    def _load(self, tile: Shape, note: Callable[[str], None]) -> Session:
        def load(shape: Shape) -> Session:
            return self.choice.load(self.model, shape, self.precision, note, self.at_once)

        return ViewsSession(load, tile) if self.model.card.views else load(tile)

    def replace(
        self, error: Exception, tile: Shape, note: Callable[[str], None] = lambda text: None
    ) -> None:
        """Put the next engine in the place of one for a GPU that failed while it computed an image.

        Raises
        ------
        Exception
            `error`, where the user asked for the engine, it computes on the CPU, or too little of
            the CPU's memory is to blame, of which no other engine would need less.
        """
        if self.choice.requested or not self.choice.spec.needs or means_no_memory(error):
            raise error
        if not isinstance(error, CellrtError):
            error = EngineError(f"{self.choice.name} fails ({first_line(error)})")
        self._replace(error, tile, note, remembered=False)

    def _replace(
        self, error: CellrtError, tile: Shape, note: Callable[[str], None], *, remembered: bool
    ) -> None:
        former = self.choice
        self.choice = next_engine(
            former, error, self.model, tile, self.precision, remembered=remembered
        )
        self._sessions.clear()  # an image is computed by one engine
        note(f"engine {former.name} failed; going on with {self.choice.name}")

    def finish(self) -> None:
        """Say that an image is done: what comes after the network needs the memory."""
        with self._lock:
            for session in self._sessions.values():
                for one in getattr(session, "sessions", (session,)):  # of several GPUs
                    if hasattr(one, "finish"):
                        one.finish()
            if not self.keep:
                self._sessions.clear()
