"""What this machine is, as far as it matters to how networks run on it."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cellrt.limits import free_memory, usable_cores
from cellrt.runtime.machine.driver import Gpu, nvidia_gpus

# What decides how fast a network runs, by LLVM's names, and what people call it.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512vnni": "VNNI",
    "avx512bf16": "AVX-512 BF16",
    "amx-bf16": "AMX",
    "neon": "NEON",
    "bf16": "BF16",
}
_MULTIPLY_BF16 = {"avx512bf16", "amx-bf16", "bf16"}
_MULTIPLY_MATRICES = {"amx-bf16"}
# What a user may lower oneDNN to, which OpenVINO and PyTorch compute with, and what of it has bf16.
_HIGHEST_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ISA_WITH_BF16 = re.compile("|DEFAULT|ALL|.*(BF16|FP16|AMX|AVX10).*")
_ISA_WITH_AMX = re.compile("|DEFAULT|ALL|.*AMX.*")
_JETSON = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class Machine:
    """Hardware and interpreter.

    Parameters
    ----------
    system, python : str
        Operating system and Python version.
    cpu : str
    cores : int
        Cores this process may use.
    cores_source : str
        What limits them.
    instructions : tuple of str
        Vector and matrix instructions; empty where the system does not tell.
    free_memory_bytes : int
    memory_limit_bytes : int
        All that this process could have, if nothing were used.
    memory_source : str
        What limits the memory.
    gpus : tuple of Gpu
    gpu_note : str
        Why no GPU is listed; empty when there is one.
    """

    system: str
    python: str
    cpu: str
    cores: int
    cores_source: str
    instructions: tuple[str, ...]
    free_memory_bytes: int
    memory_limit_bytes: int
    memory_source: str
    gpus: tuple[Gpu, ...]
    gpu_note: str


def this_machine() -> Machine:
    """Look at the machine; nothing here needs an engine or a GPU library."""
    cpu, instructions = _processor()
    gpus, note = nvidia_gpus()
    cores, memory = usable_cores(), free_memory()
    board = _JETSON.read_text(encoding="utf-8").rstrip("\0\n") if _JETSON.is_file() else ""
    return Machine(
        system=f"{platform.system()} {platform.release()}" + (f" on {board}" if board else ""),
        python=platform.python_version(),
        cpu=cpu,
        cores=cores.number,
        cores_source=cores.source,
        instructions=instructions,
        free_memory_bytes=memory.free,
        memory_limit_bytes=memory.limit,
        memory_source=memory.source,
        gpus=gpus,
        gpu_note=note,
    )


def _processor() -> tuple[str, tuple[str, ...]]:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
            break
    if sys.platform == "darwin":
        name = program_output("sysctl", "-n", "machdep.cpu.brand_string") or name
    return name, tuple(words for flag, words in INSTRUCTIONS.items() if flag in _features())


def cpu_has_bf16(*, matrices: bool = False) -> bool:
    """Whether this CPU multiplies bf16 by itself, and may; or even whole matrices (AMX).

    Where it cannot, libraries compute in bf16 all the same, several times slower than in fp32.
    ``ONEDNN_MAX_CPU_ISA`` may forbid it.
    """
    highest = next((os.environ[name] for name in _HIGHEST_ISA if os.environ.get(name)), "")
    there, allowed = (
        (_MULTIPLY_MATRICES, _ISA_WITH_AMX) if matrices else (_MULTIPLY_BF16, _ISA_WITH_BF16)
    )
    return bool(_features() & there) and bool(allowed.fullmatch(highest.upper()))


@functools.cache
def _features() -> frozenset[str]:
    from llvmlite import binding

    try:
        found = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know them of every processor
        return frozenset()
    return frozenset(name for name, there in found.items() if there)


def program_output(*command: str) -> str | None:
    """What a program prints; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
