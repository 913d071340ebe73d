"""Signals by which a user or a system ends a run: it ends soon, with nothing half-written.

Python raises what a handler raises wherever the main thread is. Where that is a callback from C, as
of LLVM while a kernel is compiled, or a destructor, the exception is dropped and the run would go
on. So a signal that has come is delivered again until the run is over. Handlers see whether the
exception is on its way, with everything being put away, and leave it alone then.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from typing import Any

# Ctrl-C, of batch systems and containers, a closed terminal, a limit of time (ulimit -t),
# Ctrl-Break.
_ENDINGS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGBREAK")
# Short beside what a person waits for, long beside what Python does between two deliveries.
_SECONDS = 0.2

_over = threading.Event()


def ending_signals() -> list[signal.Signals]:
    """Those there are on this system."""
    return [getattr(signal, name) for name in _ENDINGS if hasattr(signal, name)]


def end_on_signals() -> None:
    """Let the signals that end a run raise KeyboardInterrupt, until `run_is_over`.

    One that is ignored already stays so, as SIGHUP is under ``nohup``.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _over.clear()
    insisting = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal insisting
        if _over.is_set():
            return
        if not insisting:
            insisting = True
            threading.Thread(target=_insist, args=(signal.Signals(number),), daemon=True).start()
        if not interrupted(sys.exc_info()[1]):
            raise KeyboardInterrupt

    for number in ending_signals():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    sys.unraisablehook = _drop_interrupts


def run_is_over() -> None:
    """From here on signals change nothing: what is left is to say how the run ended."""
    _over.set()


def interrupted(error: BaseException | None) -> bool:
    """Whether a signal came first: inside of a lock, say, another error follows it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _insist(number: signal.Signals) -> None:
    """Deliver a signal again and again, to the main thread, as locks wait there until one comes."""
    main = threading.main_thread().ident
    while not _over.wait(_SECONDS):
        if sys.platform == "win32" or main is None:
            _thread.interrupt_main(number)
        else:
            signal.pthread_kill(main, number)


def _drop_interrupts(unraisable: Any) -> None:
    """Say nothing of an interruption that was dropped, as it comes again."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
