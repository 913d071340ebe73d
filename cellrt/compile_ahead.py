"""Compile what will be needed while something else runs.

Compiling is nearly all of a user's first run, and numba compiles one kernel at a time in a process.
So the first time another process does it, and leaves its kernels where this one looks for them.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from cellrt.compiled import announce, keep, kept, stopped_by
from cellrt.limits import usable_cores

_ready: set[str] = set()  # what this process has compiled and loaded: images follow each other
# Longer than slow machines take; then it hangs.
_MOST_SECONDS = 300
_OTHER_PROCESS = """
import sys
sys.path[:] = {path!r}
import pickle
for work in pickle.load(sys.stdin.buffer):
    work()
"""


@contextmanager
def compile_ahead(
    *works: Callable[[], None], apart: Sequence[Callable[[], None]] = ()
) -> Iterator[Callable[[], None]]:
    """Compile and load what some functions use, beside a block and at the latest at its end.

    Parameters
    ----------
    *works : callable
        Called in turn, in a thread.
    apart : sequence of callable
        Called before them; where nobody has called one of them on this machine, first in another
        process, which can do it at the same time as this one compiles something else.

    Yields
    ------
    callable
        Waits until all is there.
    """
    apart = [work for work in apart if _mark(work) not in _ready]
    works = tuple(work for work in works if _mark(work) not in _ready)
    if not apart and not works:
        yield lambda: None
        return
    other = _start([work for work in apart if not kept(_mark(work))])
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="compile") as thread:
        try:
            running = thread.submit(_finish, other, [*apart, *works], stop)
            yield running.result
            running.result()
            _ready.update(_mark(work) for work in (*apart, *works) if _is_known(work))
        except BaseException:
            # Nobody who presses Ctrl-C waits for kernels that nobody will use.
            stop.set()
            if other is not None:
                other.kill()
            raise


def _is_known(work: Callable[[], None]) -> bool:
    """Whether its name says what it is, as those of lambdas and inner functions do not."""
    return "<" not in work.__qualname__


def _mark(work: Callable[[], None]) -> str:
    return f"{work.__module__}.{work.__qualname__}.begun"


def _start(works: Sequence[Callable[[], None]]) -> subprocess.Popen[bytes] | None:
    """Start the other process, where it can help.

    It cannot on a single core, where its kernels cannot be kept, for what nobody but this process
    knows, and in a frozen application, whose executable is no interpreter.
    """
    if not works or usable_cores().number == 1 or getattr(sys, "frozen", False):
        return None
    try:
        pickled = pickle.dumps(works)
    except (pickle.PicklingError, AttributeError, TypeError):  # all three mean the same
        return None
    if not all(keep(_mark(work), b"") for work in works):
        return None
    announce()
    try:
        other = subprocess.Popen(
            [sys.executable, "-c", _OTHER_PROCESS.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError:
        return None
    assert other.stdin is not None
    with other.stdin as pipe, suppress(BrokenPipeError):
        pipe.write(pickled)
    return other


def _finish(
    other: subprocess.Popen[bytes] | None,
    works: Sequence[Callable[[], None]],
    stop: threading.Event,
) -> None:
    """Load what the other process left; what it did not is compiled here."""
    if other is not None:
        try:
            other.wait(_MOST_SECONDS)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
    with stopped_by(stop):
        for work in works:
            work()
