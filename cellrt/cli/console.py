"""Letters that a terminal cannot print never end a run: plain ones stand in for them.

What is printed goes through ``sys.stdout`` and ``sys.stderr``, whatever prints it: a bar, a
warning, a library. So their error handlers are the one place that has to know.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

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


def make_printable() -> None:
    """Let standard output and error replace what they cannot encode; the encoding stays.

    What is printed appears line by line, as on a terminal, also where a program reads it.
    """
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        # A stream may be missing (pythonw) or be something else (a notebook, a test).
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER, line_buffering=True)


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
