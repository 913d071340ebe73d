"""One run at a time for one output, by locks that the system drops when a process ends."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cellrt.errors import InputError


@contextmanager
def claim(paths: Iterable[Path]) -> Iterator[None]:
    """Hold these files against every other run while the body runs, whether they exist or not.

    A hidden file beside each is locked. However a process ends, the system drops its locks, so that
    a file left behind by one that was killed stops nobody; the next run takes it away. Where
    there are no locks, as in some network folders, nothing is held, and the results' names are
    still given to one run only when they are written.

    Parameters
    ----------
    paths : iterable of Path
        Their folders exist.

    Raises
    ------
    InputError
        Another run holds one of them.
    """
    with ExitStack() as held:
        for path in sorted(paths):
            held.enter_context(_lock(path))
        yield


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    # The hash, because the name itself may be as long as a name can be.
    digest = hashlib.sha256(os.fsencode(os.path.normcase(path.name))).hexdigest()
    place = path.with_name(f".cellrt-{digest[:16]}.lock")
    file = _open_locked(place, path)
    try:
        yield
    finally:
        if file is not None:
            # Away before it is let go, as nobody must lock a file that is about to go; Windows
            # removes no open file, and refuses where another run has opened it meanwhile.
            if os.name == "nt":
                os.close(file)
            with suppress(OSError):
                place.unlink()
            if os.name != "nt":
                os.close(file)


def _open_locked(place: Path, path: Path) -> int | None:
    """Open and lock a file that is still there afterwards; None where that cannot be done."""
    while True:
        try:
            file = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # somebody else's, or no place for files: writing will say so
            return None
        try:
            _lock_now(file)
            if os.path.samestat(os.fstat(file), os.stat(place)):
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise InputError(
                    f"another run is writing {path} at this moment; wait for it, or name another "
                    "file with -o"
                ) from error
            return None
        os.close(file)  # the run before has just taken it away


def _lock_now(file: int) -> None:
    """Lock an open file for this process alone; raises at once where another one has it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
