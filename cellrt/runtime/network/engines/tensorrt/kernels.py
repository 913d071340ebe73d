"""Kernels that TensorRT-RTX compiles where an engine runs, kept for the next process."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from cellrt.files import write_whole

_DIGEST_BYTES = hashlib.sha256().digest_size


class KeptKernels:
    """The library's cache of compiled kernels, read from a file and written back to it.

    Parameters
    ----------
    settings : IRuntimeConfig
        Of the context that is to use it; takes the cache.
    file : Path
        Begins with the hash of what follows: like an engine it is machine code, and what is not as
        it was written is not read. The library itself refuses what is of another GPU or driver.
    """

    def __init__(self, settings: Any, file: Path) -> None:
        self._file = file
        self._saved = _read(file)
        self._cache = settings.create_runtime_cache()
        if self._saved:
            self._cache.deserialize(self._saved)
        settings.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what has been compiled since; where that fails, it is compiled again, and all."""
        with contextlib.suppress(Exception):  # the library's own errors have no base
            compiled = bytes(self._cache.serialize())
            if compiled != self._saved:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._file, hashlib.sha256(compiled).digest() + compiled)
                self._saved = compiled


def _read(file: Path) -> bytes:
    """What was kept; nothing where there is none, or it is damaged."""
    try:
        data = file.read_bytes()
    except OSError:
        return b""
    digest, kept = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return kept if hashlib.sha256(kept).digest() == digest else b""
