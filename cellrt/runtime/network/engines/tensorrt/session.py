"""TensorRT and TensorRT-RTX as inference engines: one module for both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import Gpu, nvidia_gpus
from cellrt.runtime.machine.gpu import (
    Device,
    DeviceMemoryError,
    address,
    devices_alike,
    memory_errors,
    open_device,
    stream_handle,
)
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_input
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
from cellrt.runtime.network.engines.tensorrt.kernels import KeptKernels
from cellrt.runtime.network.engines.tensorrt.layers import layer_profiler
from cellrt.runtime.network.engines.tensorrt.library import (
    LEAN,
    TensorRT,
    no_collection,
    open_runtime,
)
from cellrt.runtime.network.engines.tensorrt.provide import (
    TURING,
    Builder,
    computed_in,
    engine_key,
    obtain_engine,
)

# Largest difference of a channel's mean over one tile from what the CPU computes in fp32. Measured
# on CPUs, the graph with every layer rounded differs by less than 1e-3 in fp16 and bf16, and int8
# by up to 6e-3; whatever is wrong with an engine shows as far more.
TOLERANCE = 0.02

Note = Callable[[str], None]
Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


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
        builder.refuse(computed_in(model, builder, precision))

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
        self.check(model, tile, precision)
        gpu, cache = _gpu(), default_cache()
        builder = _builder(open_runtime(self.flavour), gpu)
        built = _built(model, builder, tile, precision, cache, gpu)
        if built is None:
            built = obtain_engine(model, builder, cache, tile=tile, precision=precision, note=note)
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
    family = f"sm{gpu.compute_capability.replace('.', '')}"
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
            and (here or family in other.compute_capability.split("+"))
            and (other.library == key.library or runs_older(builder.library, other.library))
        ):
            found.append(entry)
    yield from sorted(found, key=lambda entry: (entry.chosen, entry.built), reverse=True)


def runs_older(library: TensorRT, built_with: str) -> bool:
    """Whether this is a lean runtime no older than the TensorRT that an engine was built with."""
    name, _, version = built_with.partition(" ")
    return (
        library.flavour is LEAN
        and name == "tensorrt"
        and _numbers(version) <= _numbers(library.version)
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def verify(sessions: Sequence[DeviceSession], reference: Infer, tile: Shape, name: str) -> None:
    """Compare an engine on each GPU with the CPU, on as many tiles as it will compute at once.

    The tiles differ, so that one which is computed in another's place shows.

    Raises
    ------
    EngineError
        They differ.
    ResourceError
        Too little device memory for one tile.
    """
    image = golden_input(tile)
    turned = (image, image[..., ::-1], image[..., ::-1, :], 1 - image)
    most = max(session.largest_batch for session in sessions)
    images = np.concatenate([turned[index % len(turned)] for index in range(most)])
    expected = [reference(np.ascontiguousarray(one[None])) for one in images[: len(turned)]]
    for session in sessions:
        found = _infer_most(session, images[: session.largest_batch])
        for index, fields in enumerate(found):
            wanted = expected[index % len(turned)][0]
            difference = np.abs(fields - wanted).mean(axis=(1, 2, 3)).max()
            if not difference <= TOLERANCE:
                raise EngineError(
                    f"{name} computes something else than the CPU (mean difference "
                    f"{difference:.2g}, at most {TOLERANCE} is expected); use --engine openvino, "
                    "and report the model"
                )


def _infer_most(session: DeviceSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fields of as many tiles as there is device memory for."""
    while True:
        try:
            return session.infer(images)
        except DeviceMemoryError:
            if len(images) == 1:
                raise
            images = images[: len(images) // 2]


class TensorRTSession(DeviceSession):
    """An engine on a GPU, with one execution context.

    Parameters
    ----------
    library : TensorRT
    engine : bytes
        Serialised; it is machine code, so only from the user's cache or bundle, where its hash is
        recorded, or straight from the builder.
    gpu : Device
    precision, name : str
        For the run record: the graph's precision, the GPU's name.
    kernels : Path, optional
        Where what TensorRT-RTX compiles for this GPU is kept, so that no later process compiles it.

    Raises
    ------
    EngineError
        The engine does not load on this GPU.
    """

    def __init__(
        self,
        library: TensorRT,
        engine: bytes,
        gpu: Device,
        precision: str,
        name: str,
        kernels: Path | None = None,
    ) -> None:
        self.gpu = gpu
        self.device = name
        self.precision = precision
        self.stream = gpu.stream()
        self._library = library
        trt = library.api
        self._runtime = library.start("Runtime")
        with no_collection():
            self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineError(
                f"{library.flavour.name} {library.version} cannot load the engine: "
                f"{library.complaint}; run `cellrt build --clear`, or use another --engine"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._input = inputs[0]
        self._output = next(name for name in names if name not in inputs)
        self.output_channels = int(self._engine.get_tensor_shape(self._output)[1])
        largest = self._engine.get_tensor_profile_shape(self._input, 0)[2]
        self.largest_batch = int(largest[0])
        # Its working memory is ours, as large as the batch needs and no larger.
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._kernels, how = _settings(self._engine, strategy, kernels)
        with memory_errors(), no_collection():
            self._context = self._engine.create_execution_context(how)
        if self._context is None:
            raise EngineError(
                f"{library.flavour.name} {library.version} cannot run the engine: "
                f"{library.complaint}; use another --engine"
            )
        self._workspace: Any = None
        self._shape: tuple[int, ...] = ()
        self._shapes: set[tuple[int, ...]] = set()
        self._compiled = True

    def finish(self) -> None:
        """Say that an image is done: what was compiled for it is kept for the next process."""
        if self._kernels is not None and self._compiled:
            self._kernels.keep()
        self._compiled = False

    def reserve(self, batch: int, tile: Shape) -> None:
        """See `DeviceSession`."""
        shape = (batch, 1, *tile)
        if shape == self._shape:
            return
        if not self._context.set_input_shape(self._input, shape):
            raise EngineError(
                f"{self._library.flavour.name} refuses tiles of shape {shape}: "
                f"{self._library.complaint}"
            )
        size = int(self._context.update_device_memory_size_for_shapes())
        if self._workspace is None or self._workspace.size < size:
            self._workspace = None  # goes back before more is asked for
            self._workspace = self.gpu.empty((max(size, 256),), np.uint8, self.stream)
        self._context.set_device_memory(address(self._workspace), self._workspace.size)
        self._shape = shape
        self._compiled |= shape not in self._shapes
        self._shapes.add(shape)

    def enqueue(self, image: Any, fields: Any) -> None:
        """See `DeviceSession`."""
        self.reserve(image.shape[0], image.shape[2:])  # the last batch may be smaller
        self._context.set_tensor_address(self._input, address(image))
        self._context.set_tensor_address(self._output, address(fields))
        if not self._context.execute_async_v3(stream_handle(self.stream)):
            raise EngineError(
                f"{self._library.flavour.name} failed: {self._library.complaint}; "
                "use another --engine"
            )

    def layers(self, image: NDArray[np.float32], runs: int) -> list[LayerTime]:
        """How long each layer takes; from now on each run waits for its layers."""
        run = self.in_place(image)
        run()  # the first time prepares
        profiler = layer_profiler(self._library.api)
        self._context.profiler = profiler
        for _ in range(runs):
            run()
        return [LayerTime(name, "", "", sum_ / runs) for name, sum_ in profiler.sums.items()]


def _settings(engine: Any, strategy: Any, kernels: Path | None) -> tuple[KeptKernels | None, Any]:
    """How to create a context: a configuration where there are such, else the strategy alone.

    TensorRT has configurations from 10.11 on, and TensorRT-RTX keeps compiled kernels in them.
    """
    if not hasattr(engine, "create_runtime_config"):
        return None, strategy
    settings = engine.create_runtime_config()
    settings.set_execution_context_allocation_strategy(strategy)
    if kernels is None or not hasattr(settings, "create_runtime_cache"):
        return None, settings
    return KeptKernels(settings, kernels), settings
