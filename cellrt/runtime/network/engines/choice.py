"""The engine that was chosen: what it takes of a model, what it refuses, and how it loads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cellrt._version import __version__
from cellrt.errors import CellrtError, EngineError, ResourceError, first_line
from cellrt.geometry import Shape
from cellrt.limits import means_no_memory, out_of_memory
from cellrt.runtime.machine.driver import nvidia_gpus
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import Engine, EngineSpec, LayerTime, Session
from cellrt.runtime.network.engines.gpu_session import ENGINE_BYTES_PER_VOXEL
from cellrt.runtime.network.engines.precision import file_for
from cellrt.runtime.network.engines.remembered import forget, recall, remember


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
        return self.own or engine_of(self.spec)

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
        with own_errors(self.spec):
            return cast("Shape | None", own(file, left)) or model.card.tile

    @property
    def several_at_once(self) -> bool:
        """Whether several threads may use a session at a time, if it is loaded for that."""
        return bool(getattr(self.engine, "several_at_once", False))

    def device_voxels(self, model: ModelFile) -> int | None:
        """Voxels of the largest tile where the network runs in a GPU's memory; None elsewhere."""
        device_voxels = getattr(self.engine, "device_voxels", None)
        if device_voxels is None:
            return None
        with own_errors(self.spec):
            return cast("int | None", device_voxels(model))

    def tile_bytes(self, model: ModelFile, precision: str) -> float:
        """Bytes per voxel of a tile that the engine takes of the CPU's memory, about."""
        tile_bytes = getattr(self.engine, "tile_bytes", None)
        if tile_bytes is None:
            return model.card.activation_bytes + ENGINE_BYTES_PER_VOXEL
        file, left = self._asked(model, precision)
        with own_errors(self.spec):
            return cast("float", tile_bytes(file, left))

    def refuse(self, model: ModelFile, tile: Shape | None, precision: str) -> None:
        """Refuse a model that the engine cannot run, where that is clear before it is loaded.

        Raises
        ------
        EngineError
        InputError
            The file beside the model that it would take is not of this model.
        """
        file, left = self._asked(model, precision)
        if model.card.told is not None and self.spec.needs == "nvidia":
            raise EngineError(
                f"{self.spec.name} does not tell {model.card.name} where a tile lies yet; use "
                "--engine openvino or onnxruntime"
            )
        if model.card.views and self.spec.fixed_tile:
            raise EngineError(
                f"{self.spec.name} takes tiles of one shape, and the planes of {model.card.name} "
                "have three; use --engine openvino or onnxruntime"
            )
        check = getattr(self.engine, "check", None)
        if check is not None:
            with own_errors(self.spec):
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
        at_once: int = 1,
    ) -> Session:
        """Load a model into the chosen engine, for several threads at a time where it can that.

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
        with own_errors(self.spec):
            more = {"at_once": at_once} if at_once > 1 and self.several_at_once else {}
            session = self.engine.load(file, tile, precision=left, note=note, **more)
        if self.requested and self.spec.needs:  # no other run has to be spared it any more
            forget("failed", *_facts(self.spec, self.detail, model, tile, precision))
        return session

    def remember_failure(
        self, error: CellrtError, model: ModelFile, tile: Shape, precision: str
    ) -> None:
        """Spare later runs an engine that failed to load a model.

        What failed for want of memory, or on the CPU, where trying again costs little, is not
        remembered.
        """
        if isinstance(error, EngineError) and self.spec.needs:
            text = f"it failed on {date.today().isoformat()}: {error.message}"
            remember("failed", *_facts(self.spec, self.detail, model, tile, precision), text=text)

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
        with own_errors(self.spec):
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
        with own_errors(self.spec):
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


def _facts(
    spec: EngineSpec, detail: str, model: ModelFile, tile: Shape | None, precision: str
) -> tuple[str, ...]:
    """Everything that whether an engine loads a model depends on."""
    gpus = [str(gpu) for gpu in nvidia_gpus()[0]] if spec.needs == "nvidia" else []
    of_tile = str(tile) if spec.fixed_tile else ""
    file = file_for(model, spec, precision)
    return (spec.name, detail, *gpus, file.sha256, of_tile, precision, __version__)


@contextmanager
def own_errors(spec: EngineSpec) -> Iterator[None]:
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


def engine_of(spec: EngineSpec) -> Engine:
    """Import an engine."""
    name, _, attribute = spec.module.partition(":")
    module = importlib.import_module(name)
    return cast(Engine, getattr(module, attribute) if attribute else module)
