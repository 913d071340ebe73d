"""TensorRT and TensorRT-RTX as inference engines of the ladder: one module for both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import Gpu, nvidia_gpus
from cellrt.runtime.machine.gpu import (
    devices_alike,
    open_device,
)
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import LayerTime
from cellrt.runtime.network.engines.gpu_session import (
    DeviceSession,
    SpreadSession,
    on_all,
)
from cellrt.runtime.network.engines.openvino import CPU
from cellrt.runtime.network.engines.remembered import recall, remember
from cellrt.runtime.network.engines.tensorrt.cache import (
    EngineCache,
    EngineKey,
    Entry,
    default_cache,
)
from cellrt.runtime.network.engines.tensorrt.library import (
    LEAN,
    TensorRT,
    open_runtime,
)
from cellrt.runtime.network.engines.tensorrt.provide import (
    TURING,
    Builder,
    computed_in,
    engine_key,
    obtain_engine,
    usual_profile,
)
from cellrt.runtime.network.engines.tensorrt.session import TensorRTSession
from cellrt.runtime.network.engines.tensorrt.verify import verify

Note = Callable[[str], None]


@dataclass(frozen=True)
class TensorRTEngine:
    """One flavour of TensorRT in the ladder of engines.

    Parameters
    ----------
    flavour : str
        "tensorrt" or "tensorrt-rtx".
    """

    flavour: str

    def available(self, *, asked: bool = False) -> str:
        """Return the library's version and the GPU.

        Raises
        ------
        EngineError
            There is no GPU, or not one that the library knows, or the library or numba's CUDA
            target cannot be had.
        """
        gpu = _gpu()
        library = open_runtime(self.flavour)
        library.refuse_gpu(gpu)
        open_device()
        return f"{library.flavour.name} {library.version} on {gpu.name}"

    def check(self, model: ModelFile, tile: Shape, precision: str) -> None:
        """Refuse a model of which there is no engine, where none could be built either.

        Raises
        ------
        EngineError
            This GPU has no engine in what is asked for, or the library builds none.
        """
        gpu, library = _gpu(), open_runtime(self.flavour)
        builder = _builder(library, gpu)
        if next(_entries(model, builder, tile, precision, default_cache(), gpu), None):
            return
        if library.flavour is LEAN:
            raise EngineError(
                f"there is no engine of {model.card.name} for TensorRT's lean runtime, which "
                "builds none; run `cellrt build --lean` with all of TensorRT on this GPU, or "
                "`pip install 'cellrt[tensorrt]'`"
            )
        builder.refuse(model, precision)

    def load(
        self,
        model: ModelFile,
        tile: Shape,
        *,
        precision: str = "auto",
        note: Note = lambda text: None,
    ) -> DeviceSession | SpreadSession:
        """Take the engine of a model from the cache, or build it, and check what it computes.

        It computes in the types of the file, of fp32 see `computed_in`.

        Raises
        ------
        EngineError
            As `check`; the engine cannot be built, does not load on this GPU, computes something
            else than the CPU does, or the CPU has no engine to compare with.
        ResourceError
            The cache cannot be written, or there is too little device memory.
        """
        gpu, cache = _gpu(), default_cache()
        builder = _builder(open_runtime(self.flavour), gpu)
        built = _built(model, builder, tile, precision, cache, gpu)
        if built is None:
            self.check(model, tile, precision)
            profile = usual_profile(tile)
            built = obtain_engine(model, builder, cache, profile, precision=precision, note=note)
        engine, key = built
        return open_engine(builder.library, engine, key.precision, model, tile, note)

    def layers(
        self, model: ModelFile, image: NDArray[np.float32], precision: str, runs: int
    ) -> list[LayerTime]:
        """How long each layer takes on the first GPU, as TensorRT tells an object of ours.

        Raises
        ------
        EngineError, ResourceError
            As `load`.
        """
        _, _, depth, height, width = image.shape
        loaded = self.load(model, (depth, height, width), precision=precision)
        session = loaded.sessions[0] if isinstance(loaded, SpreadSession) else loaded
        assert isinstance(session, TensorRTSession)
        return session.layers(image, runs)

    def tile(self, model: ModelFile, precision: str) -> Shape | None:
        """The tile (z, y, x) that `cellrt build` was last asked for; None where it never was."""
        gpu = _gpu()
        builder = _builder(open_runtime(self.flavour), gpu)
        entries = _entries(model, builder, None, precision, default_cache(), gpu)
        return next((entry.key.profile.tile for entry in entries if entry.chosen), None)

    def build_seconds(self, model: ModelFile, tile: Shape, precision: str) -> float | None:
        """How long the engine took to build that is taken from the cache; None without one.

        Raises
        ------
        EngineError
            The library cannot be had.
        """
        gpus, _ = nvidia_gpus()
        if not gpus:
            return None
        builder = _builder(open_runtime(self.flavour), gpus[0])
        entries = _entries(model, builder, tile, precision, default_cache(), gpus[0])
        return next((entry.build_seconds for entry in entries), None)


def open_engine(
    library: TensorRT,
    engine: bytes,
    precision: str,
    model: ModelFile,
    tile: Shape,
    note: Note = lambda text: None,
) -> DeviceSession | SpreadSession:
    """Load an engine on every GPU that is like the first, and compare it with the CPU, once.

    Parameters
    ----------
    library : TensorRT
    engine : bytes
        Serialised; see `TensorRTSession`.
    precision : str
        Of its graph.
    model : ModelFile
        What the CPU computes for comparison, in fp32.
    tile : (int, int, int)
    note : callable

    Raises
    ------
    EngineError
        It does not load on this GPU, or computes something else than the CPU does.
    ResourceError
        Too little device memory for one tile.
    """
    gpu = _gpu()
    facts = (
        hashlib.sha256(engine).hexdigest(),
        f"{library.flavour.name} {library.version}",
        # Another GPU or driver computes with other kernels.
        *(str(gpu), str(gpu.multiprocessors), str(len(devices_alike()))),
    )
    kernels = default_cache().kernels(*facts)
    sessions = [
        TensorRTSession(library, engine, open_device(index), precision, gpu.name, kernels)
        for index in devices_alike()
    ]
    for session in sessions:
        session.output_stride = model.card.output_stride
    if recall("verified", *facts) is None:
        note(f"comparing the new engine of {model.card.name} with the CPU, once")
        verify(sessions, CPU.load(model, tile, precision="fp32").infer, tile, library.flavour.name)
        remember("verified", *facts)
        sessions[0].finish()
    return on_all(sessions)


def _gpu() -> Gpu:
    gpus, reason = nvidia_gpus()
    if not gpus:
        raise EngineError(reason)
    return gpus[0]


TENSORRT, TENSORRT_RTX = TensorRTEngine("tensorrt"), TensorRTEngine("tensorrt-rtx")


def _builder(library: TensorRT, gpu: Gpu) -> Builder:
    """What engines are built for that this GPU shall run."""
    if not library.flavour.ahead_of_time:
        return Builder(library, gpu, ())
    # Engines without a target run from compute capability 8 on.
    return Builder(library, None, (TURING,) if gpu.compute_capability == "7.5" else ())


def _built(
    model: ModelFile,
    builder: Builder,
    tile: Shape,
    precision: str,
    cache: EngineCache,
    gpu: Gpu,
) -> tuple[bytes, EngineKey] | None:
    """An engine that is in the cache: built here, or ahead of time for GPUs like this one."""
    for entry in _entries(model, builder, tile, precision, cache, gpu):
        engine, _ = cache.find(entry.key)
        if engine is not None:
            return engine, entry.key
    return None


def _entries(
    model: ModelFile,
    builder: Builder,
    tile: Shape | None,
    precision: str,
    cache: EngineCache,
    gpu: Gpu,
) -> Iterator[Entry]:
    """Engines that this GPU can run, the best first, whatever their batch and workspace.

    The one that `cellrt build` was last asked for is the best, and before all that were built on
    the way.
    """
    lean = builder.library.flavour is LEAN
    computes, found = computed_in(model, builder, precision), []
    for entry in cache.entries():
        other = entry.key
        key = engine_key(model, builder, other.profile, computes)
        same = replace(key, compute_capability=other.compute_capability, library=other.library)
        here = other.compute_capability == key.compute_capability
        if (
            same == other
            and other.profile.lean == lean
            and tile in (None, other.profile.tile)
            and (here or gpu.family in other.compute_capability.split("+"))
            and (other.library == key.library or builder.library.runs_older(other.library))
        ):
            found.append(entry)
    yield from sorted(found, key=lambda entry: (entry.chosen, entry.built), reverse=True)
