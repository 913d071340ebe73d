"""What is printed never ends a run: not by its letters, and not because nobody can read it.

What is printed goes through ``sys.stdout`` and ``sys.stderr``, whatever prints it: a bar, a
warning, a library. So these two are the one place that has to know. Plain letters stand in for
those that a terminal lacks; what can be written nowhere is dropped, and the run goes on.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from contextlib import suppress
from typing import Any, cast

_HANDLER = "cellrt.plain"
_PLAIN = {
    **dict.fromkeys("µμ", "u"),
    **dict.fromkeys("–—‐‑−─━", "-"),
    **dict.fromkeys("‘’‚′", "'"),
    **dict.fromkeys("“”„″", '"'),
    **dict.fromkeys("•·●", "*"),
    **{"×": "x", "→": "->", "…": "...", "≥": ">=", "≤": "<=", "≈": "~", "±": "+-", "°": " deg"},
    **{"✓": "ok", "✔": "ok", "✗": "--", "✘": "--", "ß": "ss", "ø": "o", "Ø": "O", "ł": "l"},
}


class _Lenient(io.RawIOBase):
    """The bottom of a stream, which drops everything from the first failure on.

    Attributes
    ----------
    error : OSError or None
        That failure; None also where a reader has had enough, as ``head`` does.
    """

    def __init__(self, below: io.RawIOBase) -> None:
        self._below = below
        self._broken = False
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._below.fileno()

    def isatty(self) -> bool:
        return self._below.isatty()

    def write(self, data: Any, /) -> int:
        count = None
        while not self._broken and count is None:
            try:
                count = self._below.write(data)
                if count is None:  # a pipe that does not wait by itself, and is full
                    select.select([], [self._below], [])
            except OSError as error:
                self._broken = True
                if not isinstance(error, BrokenPipeError):
                    self.error = error
        return len(data) if count is None else count


def make_printable() -> None:
    """Let everything be printed to standard output and error, whatever they are.

    They replace what they cannot encode, the encoding stays; they exist where they were closed,
    and drop what cannot be written. What is printed appears line by line, as on a terminal, also
    where a program reads it.
    """
    codecs.register_error(_HANDLER, _replace)
    _open_closed()
    sys.stdout, sys.stderr = _made_printable(sys.stdout), _made_printable(sys.stderr)


def output_error() -> OSError | None:
    """Why standard output could not be written, where it could not and somebody wanted it."""
    # One that is something else, as in a notebook, raises its errors by itself.
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    bottom = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return bottom.error if isinstance(bottom, _Lenient) else None


def _open_closed() -> None:
    """Open standard streams that were closed, on nothing.

    Else the next file that is opened, such as a result, takes the place of one, and libraries
    write their messages into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF and os.open(os.devnull, os.O_RDWR) == number:
                os.set_inheritable(number, True)


def _made_printable(stream: Any) -> Any:
    """Return a stream that takes everything, in the place of one that may be missing."""
    if stream is None:  # it was closed, or there is none (pythonw)
        return open(os.devnull, "w", encoding="utf-8", errors=_HANDLER)
    buffer = getattr(stream, "buffer", None)
    bottom = getattr(buffer, "raw", buffer)  # unbuffered, there is one layer less
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(bottom, io.RawIOBase):
        return stream  # of a notebook, or of a test
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(cast(io.RawIOBase, _Lenient(bottom))),
        encoding=stream.encoding,
        errors=_HANDLER,
        line_buffering=True,
    )


def printable(text: str) -> str:
    """Text of letters that standard output has.

    For what is printed past ``sys.stdout``'s own encoding: the parser writes help as UTF-8 to
    terminals that have only ASCII.
    """
    codecs.register_error(_HANDLER, _replace)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, _HANDLER).decode(encoding, "replace")


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for the first letter that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, after = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":
        # A byte of a file's name that is no text: as it is, so that the name can be copied.
        return letter.encode("ascii", "surrogateescape"), after
    if letter in _PLAIN:
        return _PLAIN[letter], after
    # Without accents, superscripts as digits; a question mark for what has no such form.
    simple = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return simple or "?", after
