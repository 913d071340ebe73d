"""Call a function in a process of its own, where a library that crashes or hangs is an answer."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar, cast

from cellrt.errors import EngineError

Result = TypeVar("Result")

# What libraries print is lost: it would stand between the lines of the one who asks.
_PROGRAM = """
import os, pickle, sys
answer = os.fdopen(os.dup(1), "wb")
nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 1)
os.dup2(nowhere, 2)
sys.path[:] = pickle.load(sys.stdin.buffer)
from cellrt.runtime.machine.apart import answered
answer.write(answered(*pickle.load(sys.stdin.buffer)))
answer.flush()
os._exit(0)  # libraries may crash at their end, when all is said
"""


def call_apart(seconds: float, function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a process of its own.

    Parameters
    ----------
    seconds : float
        After these the process is ended.
    function : callable
        It, its arguments and its result can be pickled.

    Raises
    ------
    EngineError
        It raised an error, crashed, or took too long.
    """
    if getattr(sys, "frozen", False):  # the executable is no interpreter
        return function(*arguments)
    work = pickle.dumps(sys.path) + pickle.dumps((function, arguments))
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"it did not answer in {seconds:.0f} seconds and was ended") from None
    except OSError as error:
        raise EngineError(f"no process could be started for it ({error})") from error
    if done.returncode or not done.stdout:
        raise EngineError(f"it brought its process down ({_ending(done.returncode)})")
    fine, result = pickle.loads(done.stdout)
    if not fine:
        raise EngineError(result)
    return cast(Result, result)


def answered(function: Callable[..., object], arguments: tuple[object, ...]) -> bytes:
    """What the other process writes: whether the call went well, and its result or why not."""
    from cellrt.errors import CellrtError, first_line

    try:
        return pickle.dumps((True, function(*arguments)))
    except CellrtError as error:
        return pickle.dumps((False, error.message))
    except Exception as error:  # of any library
        return pickle.dumps((False, first_line(error)))


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
