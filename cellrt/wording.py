"""How messages put things: counts with nouns, options as those who read them know them."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Options of the command line that have another name, or a value of their own, in Python.
_PARAMETERS = {
    "--output": "labels",
    "-o": "labels",
    "--overwrite": "overwrite=True",
    "--exact": "mode='exact'",
    "--param": "decoder_parameters",
    "--calibrate": "stacks",
}
# Not what stands in backticks: that is a command to be typed.
_OPTION = re.compile(r"`[^`]*`|(?<![\w-])(--[a-z][a-z-]*|-o\b)")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun.

    Examples
    --------
    >>> counted(1, "cell"), counted(0, "cell"), counted(2, "nucleus", "nuclei")
    ('1 cell', '0 cells', '2 nuclei')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def file_size(path: Path) -> str:
    """How large a file is, in words."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def a_loop() -> str:
    """How the shell of this system runs a command on many files."""
    if os.name == "nt":
        return (
            "for many, in PowerShell: `dir *.tif | ForEach-Object { cellrt segment $_.FullName }`"
        )
    return 'for many: `for f in *.tif; do cellrt segment "$f"; done`'


def in_python(text: str) -> str:
    """Name the options in a message as Python's parameters; messages are written with options.

    Examples
    --------
    >>> in_python("choose one with --time 1 to --time 3; `cellrt build --list` lists them")
    'choose one with time 1 to time 3; `cellrt build --list` lists them'
    >>> in_python("it exists already; use --overwrite, or give --voxel-size")
    'it exists already; use overwrite=True, or give voxel_size'
    """

    def parameter(found: re.Match[str]) -> str:
        option = found[1]
        if option is None:
            return found[0]
        return _PARAMETERS.get(option, option.lstrip("-").replace("-", "_"))

    return _OPTION.sub(parameter, text)
