"""What an NVIDIA GPU needs to be used, one finding after the other, each with what mends it."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cellrt.errors import first_line
from cellrt.runtime.machine.apart import call_apart
from cellrt.runtime.machine.driver import (
    NEEDS_DRIVER,
    Driver,
    free_memory_bytes,
    nvidia_driver,
)
from cellrt.runtime.machine.gpu import kernel_trouble, numpy_trouble
from cellrt.runtime.machine.hardware import program_output

# Four tiles of a bundled network in fp32 take about 0.9 GB by our estimate.
_LEAST_MEMORY = 1_000_000_000
_MOST_SECONDS = 60
_POWER_MODES = Path("/etc/nvpmodel.conf")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    subject : str
    fine : bool
    detail : str
        What was found; what is wrong and the command that mends it.
    """

    subject: str
    fine: bool
    detail: str


def preflight() -> list[Finding]:
    """Look at everything between this process and its GPU.

    Returns
    -------
    list of Finding
        Empty on a machine without an NVIDIA GPU, where nothing has to be mended.
    """
    driver = nvidia_driver()
    if not driver.gpus:
        if not driver.problem or not driver.remedy:
            return []
        return [Finding("driver", False, f"{driver.problem}; {driver.remedy}")]
    return [finding for look in _LOOKS for finding in _careful(look, driver)]


def _careful(look: Callable[[Driver], Iterator[Finding]], driver: Driver) -> list[Finding]:
    """Whatever goes wrong while looking is a finding: a preflight does not crash."""
    try:
        return list(look(driver))
    except Exception as error:
        return [
            Finding(look.__name__.strip("_"), False, f"it was not found out: {first_line(error)}")
        ]


def _driver(driver: Driver) -> Iterator[Finding]:
    oldest = min(NEEDS_DRIVER)
    if driver.cuda >= (oldest, 0):
        yield Finding("driver", True, str(driver))
    else:
        yield Finding("driver", False, driver.misfit(oldest))


def _capability(driver: Driver) -> Iterator[Finding]:
    for gpu in driver.gpus:
        alone = Driver(driver.version, driver.cuda, (gpu,))
        words = f"{gpu.name} has compute capability {gpu.compute_capability}"
        if alone.extra:
            yield Finding("capability", True, f"{words}; it takes 'cellrt[{alone.extra}]'")
        elif driver.cuda >= (min(NEEDS_DRIVER), 0):
            yield Finding("capability", False, f"{words}, too little; use --engine openvino")


def _numpy(driver: Driver) -> Iterator[Finding]:
    trouble = numpy_trouble()
    yield Finding("numpy", not trouble, trouble or f"numpy {metadata.version('numpy')}")


def _kernels(driver: Driver) -> Iterator[Finding]:
    trouble = kernel_trouble()
    if not trouble:
        versions = [f"{name} {_version(name)}" for name in ("numba-cuda", "cuda-bindings")]
        yield Finding("kernels", True, ", ".join(versions))
    elif trouble != numpy_trouble():
        yield Finding("kernels", False, trouble)


def _libraries(driver: Driver) -> Iterator[Finding]:
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        yield Finding(
            "libraries",
            False,
            "onnxruntime and onnxruntime-gpu are installed into one folder, and only the last one "
            "is there; run `pip uninstall -y onnxruntime onnxruntime-gpu && pip install "
            "'cellrt[cuda]'`",
        )


def _memory(driver: Driver) -> Iterator[Finding]:
    for index, gpu in enumerate(driver.gpus):
        free = call_apart(_MOST_SECONDS, free_memory_bytes, index)
        words = f"{free / 1e9:.1f} GB of {gpu.name} are free"
        if gpu.integrated:
            words += ", which the CPU uses, too"
        if free < _LEAST_MEMORY:
            words += (
                f", and {_LEAST_MEMORY / 1e9:.0f} GB is needed; close other programs on the GPU "
                "(`nvidia-smi` lists them) or the desktop"
            )
        yield Finding("memory", free >= _LEAST_MEMORY, words)


def _power(driver: Driver) -> Iterator[Finding]:
    """Power mode of a Jetson, which limits clocks and cores."""
    if shutil.which("nvpmodel") is None:
        return
    found = re.search(r"NV Power Mode:\s*(\S+)", program_output("nvpmodel", "-q") or "")
    if found is None:
        yield Finding("power", False, "the power mode is not known; run `sudo nvpmodel -q`")
    elif found[1].startswith("MAXN"):
        yield Finding("power", True, f"power mode {found[1]}")
    else:
        yield Finding(
            "power",
            False,
            f"power mode {found[1]} limits clocks and cores; for full speed run "
            f"`sudo nvpmodel -m {_fastest_mode()} && sudo jetson_clocks`",
        )


def _fastest_mode() -> str:
    """Number of the mode without limits, which differs from board to board."""
    try:
        text = _POWER_MODES.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "0"
    modes = re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", text)
    named = sorted((name, number) for number, name in modes if name.startswith("MAXN"))
    return named[-1][1] if named else "0"


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


_LOOKS = (_driver, _capability, _numpy, _kernels, _libraries, _memory, _power)
