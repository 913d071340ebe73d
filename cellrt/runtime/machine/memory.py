"""Memory that this process took, as far as the operating system tells."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far in bytes; None where it cannot be known."""
    try:
        # What `getrusage` says begins with the peak of the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
