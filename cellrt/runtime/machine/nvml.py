"""What NVIDIA's management library (NVML) says of GPUs: energy, power and the memory of processes.

It comes with the driver, and ``nvidia-smi`` is a program around it. A container that may only
compute does not have it.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cellrt.errors import first_line

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_INSUFFICIENT_SIZE = 7
# Windows manages the memory of its GPUs itself, and so does a GPU that shares the CPU's.
_NOT_AVAILABLE = 2**64 - 1


class _Process(ctypes.Structure):
    """``nvmlProcessInfo_t`` of the functions that end in ``_v3``."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Management:
    """The library, started. Whatever it does not tell is an OSError that says why."""

    loaded: Any = field(repr=False)

    def driver_version(self) -> str:
        """As "580.65.06"."""
        buffer = ctypes.create_string_buffer(96)
        self("nvmlSystemGetDriverVersion", buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def gpu(self, bus_id: str) -> Any:
        """Handle of the GPU in a place of the PCI bus, as "0000:01:00.0"."""
        handle = ctypes.c_void_p()
        self("nvmlDeviceGetHandleByPciBusId_v2", bus_id.encode(), ctypes.byref(handle))
        return handle

    def joules(self, gpu: Any) -> float:
        """Energy that a GPU has used since the driver was loaded; Volta and newer count it."""
        millijoules = ctypes.c_ulonglong()
        self("nvmlDeviceGetTotalEnergyConsumption", gpu, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    def watts(self, gpu: Any) -> float:
        """Power that a GPU takes."""
        milliwatts = ctypes.c_uint()
        self("nvmlDeviceGetPowerUsage", gpu, ctypes.byref(milliwatts))
        return milliwatts.value / 1e3

    def memory_of(self, pid: int) -> int | None:
        """Bytes of device memory that a process holds, on all GPUs together.

        None where it holds none, or the driver does not tell: on Windows and on a Jetson, and
        inside of a container, where processes have other numbers.
        """
        number = ctypes.c_uint()
        self("nvmlDeviceGetCount_v2", ctypes.byref(number))
        held = []
        for index in range(number.value):
            gpu = ctypes.c_void_p()
            self("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(gpu))
            with contextlib.suppress(OSError):  # one GPU that does not tell
                held += [p.bytes for p in self._processes(gpu) if p.pid == pid]
        told = [size for size in held if size != _NOT_AVAILABLE]
        return sum(told) if told else None

    def _processes(self, gpu: Any) -> list[_Process]:
        room = 64
        while True:
            # Some drivers of 535 write longer ones; of these the first is right.
            number, found = ctypes.c_uint(room), (_Process * (2 * room))()
            code = self._call("nvmlDeviceGetComputeRunningProcesses_v3")(
                gpu, ctypes.byref(number), found
            )
            if code != _INSUFFICIENT_SIZE:
                self._refuse(code)
                return list(found[: number.value])
            room = 2 * max(room, number.value)

    def __call__(self, function: str, *arguments: Any) -> None:
        self._refuse(self._call(function)(*arguments))

    def _call(self, function: str) -> Any:
        try:
            return getattr(self.loaded, function)
        except AttributeError:
            raise OSError(f"the driver is too old for {function}") from None

    def _refuse(self, code: int) -> None:
        if code:
            self.loaded.nvmlErrorString.restype = ctypes.c_char_p
            words = self.loaded.nvmlErrorString(code) or b"an error without a name"
            raise OSError(f"NVML says: {words.decode(errors='replace')}")


@contextlib.contextmanager
def management() -> Iterator[Management]:
    """Start the library, and end it afterwards.

    Raises
    ------
    OSError
        It is not there or does not start; the message says why and what to do.
    """
    try:
        loaded = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise OSError(
            f"NVML does not load ({first_line(error)}); a container needs "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        ) from error
    library = Management(loaded)
    library("nvmlInit_v2")
    try:
        yield library
    finally:
        loaded.nvmlShutdown()
