"""Kernels: functions that numba compiles, and keeps on disk for the next process.

Numba's own cache has no answer to a damaged file or a folder that cannot be written, both of which
end every run, and does not see that a function changed that a kernel calls. Here a kernel is kept
in one file with the hash of its bytes, below a folder that is named after everything else it
depends on. Where it cannot be kept or read back it is compiled again, and `complaint` says why.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from cellrt._version import __version__
from cellrt.errors import first_line

FOLDER_VARIABLE = "NUMBA_CACHE_DIR"
_PACKAGE = Path(__file__).parent
_complaints: dict[str, str] = {}  # "read" and "write", the first of each
_listeners: list[Callable[[str], None]] = []
_told = threading.Event()  # somebody knows that this process compiles
_thread = threading.local()


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function when it is first called, and keep the result on disk.

    It runs without the interpreter's lock. A division by zero gives what the processor gives.

    Parameters
    ----------
    function : callable
        In the part of Python that numba knows. Few array expressions and little allocation keep
        compiling short, which is most of what a user waits for at the first run.
    **options
        Of ``numba.njit``.

    Returns
    -------
    numba dispatcher
    """
    # Nothing calls kernels from C.
    options = {"nogil": True, "no_cfunc_wrapper": True, "error_model": "numpy", **options}
    kernel = numba.njit(**options)(function)
    kernel._cache = _KernelFiles(function)
    return kernel


inlined = functools.partial(compiled, inline="always")
"""The same for a function that becomes part of each kernel that calls it."""


class _KernelFiles(NullCache):  # type: ignore[misc]
    """The files of one kernel, one for each combination of argument types."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """What was compiled for some types of arguments; None where it has to be compiled."""
        if getattr(_thread, "stop", None) is not None and _thread.stop.is_set():
            raise KeyboardInterrupt  # which no library on the way takes for an error of its own
        target.refresh()
        for folder in folders():
            path = folder / self._file(signature)
            try:
                content = path.read_bytes()
                digest, data = content[:32], content[32:]
                if hashlib.sha256(data).digest() != digest:
                    raise ValueError("its bytes are not those that were written")
                return CompileResult._rebuild(target, *pickle.loads(data))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Exception as error:  # whatever unpickling and LLVM make of a file
                reason = getattr(error, "strerror", None) or first_line(error)
                _complain(
                    "read",
                    f"a compiled kernel in {folder} cannot be used ({reason}) and was compiled "
                    "again; the results are the same",
                )
        announce()
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled in the first folder that takes it."""
        if "write" in _complaints or result.library.has_dynamic_globals:
            return
        data = dumps(result._reduce())
        keep(self._file(signature), hashlib.sha256(data).digest() + data)

    def _file(self, signature: Any) -> str:
        return f"{self._name}-{hashlib.sha256(str(signature).encode()).hexdigest()[:16]}.kernel"


def folders() -> list[Path]:
    """Folders where kernels of this cellrt for this processor are looked for, best first.

    That which NUMBA_CACHE_DIR names and no other; else the package's own, which one user may fill
    for all, as who makes a container does, and the user's.
    """
    if numba.config.CACHE_DIR:
        return [Path(numba.config.CACHE_DIR) / "cellrt" / _state()]
    own = Path(AppDirs("cellrt", appauthor=False).user_cache_dir)
    return [base / "kernels" / _state() for base in (_PACKAGE / "__pycache__", own)]


def keep(name: str, content: bytes) -> bool:
    """Keep a file beside the kernels, in the first folder that takes it, or complain."""
    reasons = []
    for folder in folders():
        try:
            _write(folder / name, content)
            return True
        except OSError as error:
            reasons.append(_reason(folder, error))
    _complain("write", _cannot_keep(reasons))
    return False


def kept(name: str) -> bool:
    """Whether a file lies beside the kernels."""
    return any(os.path.exists(folder / name) for folder in folders())


def keeping() -> tuple[bool, str]:
    """Whether kernels can be kept or were, and in one line where, or why not."""
    reasons = []
    for folder in folders():
        if _holds_kernels(folder):
            return True, f"compiled, in {folder}"
    for folder in folders():
        try:
            _write(folder / "probe", b"")
            (folder / "probe").unlink()
            return True, f"not compiled yet: once for some seconds, to be kept in {folder}"
        except OSError as error:
            reasons.append(_reason(folder, error))
    return False, _cannot_keep(reasons)


@contextmanager
def announced(note: Callable[[str], None]) -> Iterator[None]:
    """Say, at most once in a process, that something has to be compiled."""
    if _told.is_set():
        yield
        return
    _listeners.append(note)
    try:
        yield
    finally:
        _listeners[:] = [listener for listener in _listeners if listener is not note]


@contextmanager
def stopped_by(stop: threading.Event) -> Iterator[None]:
    """Begin no further kernel in this thread once an event is set, but raise KeyboardInterrupt."""
    _thread.stop = stop
    try:
        yield
    finally:
        _thread.stop = None


def announce() -> None:
    """Tell who listens that compiling begins."""
    if _listeners:
        _listeners.pop()("compiling for this processor, once: it takes some seconds")
        _told.set()
        _listeners.clear()


def complaint() -> str:
    """Why kernels cannot be kept or read, in one line; empty where nothing is wrong."""
    return "; ".join(_complaints.values())


def _complain(kind: str, text: str) -> None:
    _complaints.setdefault(kind, text)


def _reason(folder: Path, error: OSError) -> str:
    return f"{folder.parent}: {error.strerror or error}"


def _cannot_keep(reasons: Sequence[str]) -> str:
    return (
        f"compiled kernels cannot be kept ({'; '.join(reasons)}), and every run compiles them "
        f"again for some seconds; set {FOLDER_VARIABLE} to a folder that can be written"
    )


def _holds_kernels(folder: Path) -> bool:
    try:
        return next(folder.glob("*.kernel"), None) is not None
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole; the first of its folder removes those of other sources."""
    if not path.parent.is_dir():
        # Nodes of a cluster share an installation but not the processor: theirs stay.
        place, sources, _ = path.parent.name.split("-")
        for former in path.parent.parent.glob(f"{place}-*"):
            if not former.name.startswith(f"{place}-{sources}-"):
                shutil.rmtree(former, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@functools.cache
def _state() -> str:
    """Name of a folder: where this package lies, what is compiled, and for which processor.

    A kernel contains the functions it calls and the constants it names, of other modules, too: any
    change in a module with kernels asks for new ones.
    """
    versions = (__version__, numba.__version__, llvmlite.__version__, sys.version)
    sources = hashlib.sha256(repr(versions).encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        source = path.read_bytes()
        if b"cellrt.compiled" in source:
            sources.update(source)
    place, processor = (
        hashlib.sha256(repr(words).encode()).hexdigest()[:8]
        for words in (str(_PACKAGE), cpu_target.target_context.codegen().magic_tuple())
    )
    return f"{place}-{sources.hexdigest()[:16]}-{processor}"
