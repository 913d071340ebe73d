"""Signals end a run wherever they arrive, also where Python drops what a handler raises."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from cellrt.endings import interrupted

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

# A run that is told to end while it is where an exception gets lost, and waits afterwards.
PROGRAM = """
import ctypes, signal, sys, time
from cellrt.runtime import run
number = getattr(signal, sys.argv.pop(1))
where = sys.argv.pop(1)

def arrive():
    signal.raise_signal(number)
    time.sleep(0)  # at the latest here it is handled

class Gone:
    def __del__(self):
        arrive()

def begin(*_):
    if where == "callback":
        ctypes.CFUNCTYPE(None)(arrive)()
    elif where == "destructor":
        Gone()
    elif where == "thread":  # which the main thread waits for
        import threading
        other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        other.start()
        try:
            arrive()
        except KeyboardInterrupt:
            pass
        other.join()
    else:
        try:
            arrive()
        except BaseException:  # as a library may
            pass
    print("dropped", flush=True)
    time.sleep(60)

run.begin = begin
from cellrt.cli.main import main
main(sys.argv[1:])
"""

# Puts away for longer than it takes until a signal comes again.
SLOW = """
import signal, sys, time
from contextlib import contextmanager
from cellrt.runtime import run

@contextmanager
def held():
    try:
        yield
    finally:
        time.sleep(1)
        print("put away", flush=True)

def begin(*_):
    with held():
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)

run.begin = begin
from cellrt.cli.main import main
main(sys.argv[1:])
"""


def segment(folder, program, *words):
    path = folder / "s.npy"
    np.save(path, np.random.default_rng(0).integers(0, 99, (4, 16, 16)).astype(np.uint8))
    # All that is not known is said, as what is doubtful comes on the same stream before the run.
    known = ("--diameter", "16", "--anisotropy", "1")
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "segment", str(path), *known, "-q"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        # Who runs the tests in the background has them start with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert [file.name for file in folder.iterdir()] == ["s.npy"]
    return done


@POSIX
@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("callback", "SIGTERM"),
        ("callback", "SIGINT"),
        ("destructor", "SIGTERM"),
        ("library", "SIGTERM"),
        ("thread", "SIGTERM"),
    ],
)
def test_a_run_ends_where_the_exception_was_dropped(tmp_path, where, name):
    done = segment(tmp_path, PROGRAM, name, where)
    assert done.returncode == 130, done.stderr
    assert where == "thread" or done.stdout == "dropped\n"
    assert done.stderr == "cellrt: interrupted; nothing unfinished was left\n"


@POSIX
def test_what_is_put_away_is_left_alone(tmp_path):
    done = segment(tmp_path, SLOW)
    assert done.returncode == 130, done.stderr
    assert done.stdout == "put away\n"
    assert done.stderr == "cellrt: interrupted; nothing unfinished was left\n"


def fail_after_interruption():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise ValueError("a lock was not held") from None


def test_an_interruption_is_found_behind_what_follows_it():
    with pytest.raises(ValueError, match="lock") as raised:
        fail_after_interruption()
    assert interrupted(raised.value)
    assert not interrupted(ValueError())
    assert not interrupted(None)
