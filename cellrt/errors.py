"""Errors a user can cause or meet, each with the exit code the command line ends with."""

from __future__ import annotations

import re
import unicodedata

from cellrt.wording import in_python


class CellrtError(Exception):
    """Base of all errors whose message is meant for the user.

    The message is one line: what was wrong, what was expected, what to do. It is written with
    options of the command line, such as ``--voxel-size``. The command line prints ``message``;
    everybody else has ``str(error)``, which names Python's parameters, such as ``voxel_size``.
    """

    exit_code = 3

    @property
    def message(self) -> str:
        """As the command line prints it."""
        return super().__str__()

    def __str__(self) -> str:
        return in_python(self.message)


class UsageError(CellrtError):
    """Options that contradict each other or do not exist."""

    exit_code = 2


class InputError(CellrtError):
    """Data or a model file that cannot be used as it is."""

    exit_code = 3


class EngineError(CellrtError):
    """An inference engine that cannot be had on this machine."""

    exit_code = 4


class ResourceError(CellrtError):
    """Too little memory or disk for what was asked."""

    exit_code = 5


class CellrtWarning(UserWarning):
    """Something that a user should know about a result."""


# Controls, formats, and separators of lines and paragraphs.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def one_line(text: str) -> str:
    r"""Replace what would break a line, drive the terminal or deceive the eye by its escape.

    Names of files may hold line ends and whatever else a terminal obeys, and characters that are
    not seen but turn round the order of others. Joiners stay: many scripts are written with them.

    Examples
    --------
    >>> one_line("a\nb.tif")
    'a\\nb.tif'
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSEEN and character not in _JOINERS
        else character
        for character in text
    )


def first_line(error: Exception) -> str:
    """Name of the kind of a library's error, and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def in_parentheses(said: str) -> str:
    r"""What a library said, as one short line in parentheses; empty where that is no reason.

    Objects it begins with are left out. A number or a key alone, as of a KeyError, says nothing.

    Examples
    --------
    >>> in_parentheses("<File 'a'>  not a\nTIFF"), in_parentheses("0"), in_parentheses("'Pixels'")
    (' (not a TIFF)', '', '')
    """
    text = re.sub(r"^(<[^<>]*>\s*)+", "", " ".join(said.split()))[:160]
    return f" ({text})" if re.search(r"[^\W\d_]", text) and " " in text else ""
