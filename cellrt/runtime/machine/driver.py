"""What NVIDIA's driver says of itself and its GPUs, asked through its own library.

Neither a package nor a program is needed: a container that may compute has the library and often
no ``nvidia-smi``, and one that has only ``nvidia-smi`` may not compute.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellrt.errors import first_line
from cellrt.runtime.machine.cuda_library import CudaLibrary, DriverError
from cellrt.runtime.machine.nvml import management

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_JETSON = Path("/etc/nv_tegra_release")
_PCI = Path("/sys/bus/pci/devices")
_VENDOR, _DISPLAY = "0x10de", "0x03"  # NVIDIA's number, and the class of what draws or computes

# The oldest driver of each CUDA, and the lowest compute capability that its compilers know.
NEEDS_DRIVER = {13: "580", 12: "525"}
_LOWEST_CAPABILITY = {13: (7, 5), 12: (5, 0)}


def _how_to_install() -> str:
    if _JETSON.exists():
        return "with JetPack: `sudo apt install nvidia-jetpack`"
    if shutil.which("apt"):
        return f"`sudo apt install nvidia-driver-{NEEDS_DRIVER[13]}`"
    return "from https://www.nvidia.com/drivers"


# Attributes of a device, by the driver's numbers.
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_INSTALL = f"install NVIDIA's driver {NEEDS_DRIVER[13]} or newer ({_how_to_install()})"
# Why there may be no GPU although nothing is wrong, and what to do where one is asked for.
_NOTHING, _HIDDEN = "no NVIDIA driver found", "CUDA_VISIBLE_DEVICES hides all GPUs"
_IF_WANTED = {
    _NOTHING: f"where there is an NVIDIA GPU, {_INSTALL}",
    _HIDDEN: "take that variable out of the environment",
}
# What can be wrong where the library is there, by the driver's numbers: what it is, what mends it.
_NO_DEVICE = 100
_ERRORS = {
    2: ("the GPU's memory is full", "close other programs on the GPU (`nvidia-smi` lists them)"),
    34: (
        "the libcuda that is found is the stub that programs are linked with",
        "take the folder named stubs out of LD_LIBRARY_PATH",
    ),
    46: (
        "all GPUs are taken by other programs, or are in a mode for one program",
        "close these (`nvidia-smi` lists them), or run `sudo nvidia-smi -c DEFAULT`",
    ),
    _NO_DEVICE: (
        "the driver is installed but finds no GPU",
        "see `nvidia-smi -L`; in a container, start it with `--gpus all`",
    ),
    101: ("CUDA_VISIBLE_DEVICES names a GPU that is not there", "see `nvidia-smi -L`"),
    802: (
        "the GPUs of this server are not ready, as the service that joins them does not run",
        "run `sudo systemctl start nvidia-fabricmanager`",
    ),
    803: (
        "the driver's library and its kernel module are of different versions, as after an update",
        "restart the machine; in a container, also take cuda-compat out of LD_LIBRARY_PATH",
    ),
    804: (
        "the library is that of cuda-compat, which does not support this GPU",
        "take cuda-compat out of LD_LIBRARY_PATH, or update the driver",
    ),
    999: (
        "the driver fails for a reason that it does not know, often after the machine slept",
        "run `sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`, or restart the machine",
    ),
}


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver describes it.

    Parameters
    ----------
    name : str
    memory : str
        All it has, for people.
    driver : str
        Version of the driver.
    compute_capability : str
        As "8.6".
    multiprocessors : int
        What tells boards of one compute capability apart; 0 where it is not known.
    integrated : bool
        It shares the memory of the CPU.
    """

    name: str
    memory: str
    driver: str
    compute_capability: str
    multiprocessors: int = 0
    integrated: bool = False

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.memory}, driver {self.driver}, "
            f"compute capability {self.compute_capability}"
        )

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability as numbers; (0, 0) where it is not known."""
        found = re.fullmatch(r"(\d+)\.(\d+)", self.compute_capability)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def family(self) -> str:
        """Compute capability as builders name it, "sm86"."""
        return f"sm{self.compute_capability.replace('.', '')}"

    @property
    def has_tf32(self) -> bool:
        """Whether it has matrix instructions for TF32, which came with Ampere."""
        return self.capability >= (8, 0)


def install(extra: str) -> str:
    """The command that brings an extra of cellrt."""
    return f"pip install 'cellrt[{extra}]'"


@dataclass(frozen=True)
class Driver:
    """The driver and the GPUs that this process may use.

    Parameters
    ----------
    version : str
        As "580.65.06"; empty where it does not tell.
    cuda : (int, int)
        The newest CUDA that it runs; (0, 0) where there is no driver.
    gpus : tuple of Gpu
        In the order of the PCI bus.
    problem : str
        Why there are none; empty when there are.
    remedy : str
        What mends the problem; empty where nothing is wrong, as on a machine without a GPU.
    """

    version: str = ""
    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        words = f"driver {self.version}" if self.version else "a driver"
        return f"{words} for CUDA {self.cuda[0]}.{self.cuda[1]} and older"

    @property
    def extra(self) -> str:
        """The extra of cellrt with the newest CUDA that works here; empty where none does."""
        lowest = min((gpu.capability for gpu in self.gpus), default=(0, 0))
        for major, needed in _LOWEST_CAPABILITY.items():
            if self.cuda >= (major, 0) and lowest >= needed:
                return f"cu{major}"
        return ""

    def misfit(self, major: int, instead: Callable[[str], str] = install) -> str:
        """Why libraries for CUDA `major` do not run here, and what to do; empty where they do.

        Without a driver nothing is known.

        Parameters
        ----------
        major : int
        instead : callable
            The command that brings libraries for another CUDA, given its extra.
        """
        if self.cuda == (0, 0):
            return ""
        other = f"run `{instead(self.extra)}`" if self.extra else ""
        if self.cuda < (major, 0):
            needed = NEEDS_DRIVER.get(major, "a newer one")
            advice = ", or ".join(filter(None, (f"update it to {needed} or newer", other)))
            return f"CUDA {major} needs driver {needed}, and this is {self}; {advice}"
        lowest = _LOWEST_CAPABILITY.get(major, (0, 0))
        for gpu in self.gpus:
            if gpu.capability < lowest:
                return (
                    f"CUDA {major} needs compute capability {lowest[0]}.{lowest[1]} or above, and "
                    f"{gpu.name} has {gpu.compute_capability}; {other or 'use --engine openvino'}"
                )
        return ""


def nvidia_driver() -> Driver:
    """Ask the driver; once per process, as every engine for NVIDIA's GPUs wants to know.

    No error is raised: what is wrong is said in `problem`.
    """
    # CUDA's own order puts the fastest first; libraries then disagree with nvidia-smi.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return Driver(problem=_HIDDEN)
    return _ask(_LIBRARY, visible)


def nvidia_gpus() -> tuple[tuple[Gpu, ...], str]:
    """GPUs that this process may use; the second is why there are none, and what to do."""
    driver = nvidia_driver()
    return driver.gpus, "; ".join(filter(None, (driver.problem, driver.remedy)))


def where_wanted(reason: str) -> str:
    """Why there is no GPU, as `nvidia_gpus` says, with what brings the one that somebody asks for.

    Of a machine without a GPU that says nothing, as nothing is wrong there.
    """
    return "; ".join(filter(None, (reason, _IF_WANTED.get(reason))))


def on_jetson() -> bool:
    """Whether driver, CUDA and TensorRT belong to the system, as on NVIDIA's small boards."""
    return _JETSON.exists()


def bus_id(index: int = 0) -> str:
    """Place of a GPU of `nvidia_driver` on the PCI bus, by which NVML knows it, too.

    Raises
    ------
    OSError
        The driver does not tell.
    """
    try:
        library = CudaLibrary(ctypes.CDLL(_LIBRARY))
        library("cuInit", 0)
        return library.text("cuDeviceGetPCIBusId", library.number("cuDeviceGet", index))
    except (DriverError, AttributeError) as error:
        raise OSError(f"the driver does not say where GPU {index} is ({error})") from error


def free_memory_bytes(index: int = 0) -> int:
    """Free memory of a GPU of `nvidia_driver`; makes a context there, which takes some itself.

    Raises
    ------
    OSError
        The driver does not tell; the message says why and what to do.
    """
    try:
        library = CudaLibrary(ctypes.CDLL(_LIBRARY))
        library("cuInit", 0)
        device = library.number("cuDeviceGet", index)
        context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
        library("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            library("cuCtxPushCurrent_v2", context)
            library("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            library("cuCtxPopCurrent_v2", ctypes.byref(context))
        finally:
            library.loaded.cuDevicePrimaryCtxRelease_v2(device)
    except (DriverError, AttributeError) as error:
        said = _ERRORS.get(getattr(error, "code", 0), (first_line(error), _INSTALL))
        raise OSError("; ".join(said)) from error
    return free.value


@functools.cache
def _ask(name: str, visible: str | None) -> Driver:
    try:
        library = CudaLibrary(ctypes.CDLL(name))
    except OSError as error:
        return _without_library(error)
    version, cuda = _version(), (0, 0)
    try:
        number = library.number("cuDriverGetVersion")
        cuda = number // 1000, number % 1000 // 10
        library("cuInit", 0)
        words = version or f"for CUDA {cuda[0]}.{cuda[1]}"
        gpus = tuple(
            _gpu(library, index, words) for index in range(library.number("cuDeviceGetCount"))
        )
    except DriverError as error:
        said = (f"the driver does not start: {error}", f"restart the machine, or {_INSTALL}")
        return Driver(version, cuda, (), *_ERRORS.get(error.code, said))
    except AttributeError as error:  # a function is missing: far too old, or something else
        return Driver(version, cuda, (), f"{name} is no driver of NVIDIA ({error})", _INSTALL)
    problem = () if gpus else _ERRORS[_NO_DEVICE]
    return Driver(version, cuda, gpus, *problem)


def _gpu(library: CudaLibrary, index: int, driver: str) -> Gpu:
    device = library.number("cuDeviceGet", index)

    def attribute(number: int) -> int:
        return library.number("cuDeviceGetAttribute", number, device)

    memory = library.number("cuDeviceTotalMem_v2", device, kind=ctypes.c_size_t)
    return Gpu(
        name=library.text("cuDeviceGetName", device),
        memory=f"{memory / 2**20:.0f} MiB",
        driver=driver,
        compute_capability=f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        multiprocessors=attribute(_MULTIPROCESSORS),
        integrated=bool(attribute(_INTEGRATED)),
    )


def _without_library(error: OSError) -> Driver:
    """Why the driver's library does not load: most often there is no GPU for it."""
    version = _version()
    if version:
        return Driver(
            version,
            problem=f"driver {version} is installed, but its library for CUDA does not load here "
            f"({first_line(error)})",
            remedy="start the container with `--gpus all -e NVIDIA_DRIVER_CAPABILITIES="
            f"compute,utility`; outside of one, {_INSTALL}",
        )
    if _on_the_bus():
        return Driver(problem="an NVIDIA GPU is here, but no driver of NVIDIA", remedy=_INSTALL)
    return Driver(problem=_NOTHING)


def _on_the_bus() -> bool:
    for device in _PCI.glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == _VENDOR and kind.startswith(_DISPLAY):
                return True
    return False


def _version() -> str:
    """Version of the driver, which CUDA does not tell."""
    sources: tuple[Callable[[], str], ...] = (_version_by_management, _version_by_kernel)
    return next((found for source in sources if (found := source())), "")


def _version_by_management() -> str:
    try:
        with management() as nvml:
            return nvml.driver_version()
    except OSError:
        return ""


def _version_by_kernel() -> str:
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", _KERNEL_MODULE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return found[0] if found else ""
