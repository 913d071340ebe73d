"""NVIDIA GPUs through numba-cuda: memory, streams and copies.

numba-cuda rests on NVIDIA's own ``cuda.core`` and ``cuda.bindings``. What it adds is kernels
written in Python, and a simulator in which everything that runs on a device can be tested without
one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.errors import EngineError, ResourceError, first_line
from cellrt.runtime.machine.driver import install, nvidia_driver

# numba-cuda is in maintenance and will not be mended for it; the extras have the same cap.
FIRST_NUMPY_TOO_NEW = "2.5.0"


class DeviceMemoryError(ResourceError):
    """The device has too little memory for what was asked of it."""


@dataclass(frozen=True)
class Device:
    """One GPU that kernels can run on.

    Parameters
    ----------
    index : int
        As the CUDA driver counts.
    cuda : module
        ``numba.cuda``.
    """

    index: int
    cuda: Any

    def activate(self) -> None:
        """Make the calling thread use this device."""
        self.cuda.select_device(self.index)

    def stream(self) -> Any:
        """A queue of work: copies and kernels in it run one after the other."""
        return self.cuda.stream()

    def event(self) -> Any:
        """A mark in a stream, to wait for and to measure between."""
        return self.cuda.event()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike, stream: Any) -> Any:
        """Device memory whose assignments are queued in a stream.

        Raises
        ------
        DeviceMemoryError
        """
        with memory_errors():
            return self.cuda.device_array(shape, dtype, stream=stream)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Host memory that the device copies from and to without waiting."""
        with memory_errors():
            memory: npt.NDArray[Any] = self.cuda.pinned_array(shape, dtype)
        return memory

    def in_host_memory(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """Array that kernels read and write through the bus, for what the device has no room for.

        Raises
        ------
        DeviceMemoryError
        """
        with memory_errors():
            return self.cuda.mapped_array(shape, dtype)

    @property
    def free_bytes(self) -> float:
        """Free memory of the device."""
        return float(self._memory().free)

    @property
    def total_bytes(self) -> float:
        """All memory of the device, in use or not."""
        return float(self._memory().total)

    def _memory(self) -> Any:
        with self.cuda.gpus[self.index]:  # the calling thread may use another one
            return self.cuda.current_context().get_memory_info()


def open_device(index: int = 0) -> Device:
    """Open a GPU for the calling thread.

    Parameters
    ----------
    index : int
        Counted as ``nvidia-smi`` does, among those that CUDA_VISIBLE_DEVICES leaves.

    Raises
    ------
    EngineError
        numba's CUDA target is missing, finds no driver or no device, or cannot compile.
    """
    trouble = kernel_trouble()
    if trouble:
        raise EngineError(trouble)
    from numba import cuda

    advice = f"see whether `nvidia-smi` works, or run `{install(nvidia_driver().extra or 'cu13')}`"
    try:
        if not cuda.is_available():
            raise EngineError(f"numba finds no CUDA driver, device or compiler; {advice}")
        device = Device(index, cuda)
        device.activate()
    except EngineError:
        raise
    except Exception as error:  # the driver's and the compiler's own errors, which have no base
        raise EngineError(f"GPU {index} cannot be used ({first_line(error)}); {advice}") from error
    return device


def kernel_trouble() -> str:
    """What keeps numba from compiling for the GPU of this machine, and what to do.

    Empty where nothing is known to; only a kernel that was compiled and launched proves it.
    """
    driver = nvidia_driver()
    advice = f"run `{install(driver.extra or 'cu13')}`"
    try:
        from numba import config, cuda  # noqa: F401
    except Exception as error:  # it looks for CUDA's libraries while it is imported
        return f"numba's CUDA target does not load ({first_line(error)}); {advice}"
    if config.ENABLE_CUDASIM:
        return ""
    if numpy_trouble():
        return numpy_trouble()
    try:
        bindings = metadata.version("cuda-bindings")
    except metadata.PackageNotFoundError:
        return f"numba-cuda is not installed; {advice}"
    return driver.misfit(int(bindings.partition(".")[0]))


def numpy_trouble() -> str:
    """Why numba compiles no kernel with the numpy that is installed, and what to do."""
    if np.lib.NumpyVersion(np.__version__) < FIRST_NUMPY_TOO_NEW:
        return ""
    return (
        f"numba-cuda compiles no kernel with numpy {np.__version__}; run "
        f"`pip install 'numpy<{FIRST_NUMPY_TOO_NEW.removesuffix('.0')}'`"
    )


def devices_alike() -> list[int]:
    """Indices of the GPUs that are like the first; an engine runs on all of these."""
    gpus = open_device().cuda.gpus
    if len(gpus) == 1:
        return [0]
    kinds = [(gpu.name, gpu.compute_capability) for gpu in gpus]
    return [index for index, kind in enumerate(kinds) if kind == kinds[0]]


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a CUDA library's way of saying "out of memory" into a `DeviceMemoryError`."""
    try:
        yield
    except Exception as error:
        words = str(error).lower()
        if "out of memory" in words or "out_of_memory" in words or "failed to allocate" in words:
            raise DeviceMemoryError(
                f"too little device memory ({first_line(error)}); close other programs on the "
                "GPU, give a smaller --tile, or use --engine openvino"
            ) from error
        raise


def address(array: Any) -> int:
    """Where an array on a device begins, for libraries that take pointers."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:  # the simulator's arrays lie in the host's memory
        interface = np.asarray(getattr(array, "_ary", array)).__array_interface__
    return int(interface["data"][0])


def stream_handle(stream: Any) -> int:
    """CUDA's own handle of a stream; the simulator's streams have none."""
    handle = getattr(stream, "handle", None)
    return 0 if handle is None else int(getattr(handle, "value", handle) or 0)
