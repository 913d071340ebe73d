"""How benchmarks measure: time by repeating, memory and compiling in processes of their own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median wall seconds, smallest CPU seconds, and the last result."""
    walls, cpus, result = [], [], None
    for _ in range(repeats):
        result = None
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), min(cpus), result


def added_peak_bytes(work: Callable[[], Any]) -> int:
    """Bytes by which work raises the peak of this process's resident memory, on Linux."""
    # What was read before has set a peak of its own: start anew (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _peak_resident_bytes()
    work()
    return _peak_resident_bytes() - before


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def first_use(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of code in a fresh process, where no kernel has been compiled yet."""
    timed = (
        "import time; a, b = time.perf_counter(), time.process_time()\n"
        f"{code}\n"
        "print(time.perf_counter() - a, time.process_time() - b)"
    )
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = map(float, fresh_python("-c", timed, NUMBA_CACHE_DIR=folder).split())
    return wall, cpu


def fresh_python(*arguments: str, **environment: str) -> str:
    """Run this Python in a process of its own; return its standard output."""
    command = [sys.executable, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
