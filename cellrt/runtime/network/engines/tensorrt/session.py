"""A network in TensorRT or TensorRT-RTX on one GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.geometry import Shape
from cellrt.runtime.machine.gpu import (
    Device,
    address,
    memory_errors,
    stream_handle,
)
from cellrt.runtime.network.engines.base import LayerTime
from cellrt.runtime.network.engines.gpu_session import (
    DeviceSession,
)
from cellrt.runtime.network.engines.tensorrt.kernels import KeptKernels
from cellrt.runtime.network.engines.tensorrt.layers import layer_profiler
from cellrt.runtime.network.engines.tensorrt.library import (
    TensorRT,
    no_collection,
)


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
