"""Parameters of a decoder by name, from a model card, from Python or from the command line.

A family's parameters are a frozen dataclass. Its fields say what may be given: numbers, words,
yes or no, one of several words (``Literal``), or a tuple of these.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cellrt.errors import CellrtError, UsageError

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# Of a numpydoc docstring: what describes parameters, up to the next heading; names and their text.
_SECTIONS = re.compile(
    r"^(?:Attributes|(?:Other )?Parameters)\n-+\n(?P<body>.*?)(?=^[^\n]+\n-{3,}$|\Z)", re.M | re.S
)
_ENTRIES = re.compile(r"^(\w[\w, ]*?)(?: *:[^\n]*)?\n((?:[ \t]+[^\n]+\n?|\n(?=[ \t]))+)", re.M)
_KINDS = {bool: "yes or no", int: "a whole number", float: "a number", str: "a word"}


DRAWING: Mapping[str, Any] = {"drawing": True}
"""Metadata of a parameter's field that only says how cells are drawn once they are found: a search
for their size leaves it as the card has it."""


def without_drawing(settings: Mapping[str, Any], parameters: type) -> dict[str, Any]:
    """Settings but for those of fields that are marked with `DRAWING`."""
    drawing = {field.name for field in dataclasses.fields(parameters) if field.metadata == DRAWING}
    return {name: value for name, value in settings.items() if name not in drawing}


def split_settings(texts: Iterable[str], parameters: Any) -> dict[str, str]:
    """Take ``name=value`` apart, as ``--param`` gives it.

    Parameters
    ----------
    texts : iterable of str
    parameters : dataclass
        Those of the decoder, for an example.

    Raises
    ------
    UsageError
        A text without ``=``, or a name that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not (equals and name):
            raise UsageError(
                f"--param {text!r} is no name=value{_example(name, parameters)}; `cellrt segment "
                "--param help` lists what there is"
            )
        if name in found:
            raise UsageError(f"--param {name} is given twice; give it once")
        found[name] = value.strip()
    return found


def _example(name: str, parameters: Any) -> str:
    """How a parameter is written: the one that is meant, or any."""
    names = list(parameter_types(type(parameters)))
    if not names:
        return ""
    meant = name if name in names else names[0]
    return f", such as --param {meant}={_as_text(getattr(parameters, meant))}"


def with_values(parameters: Any, values: Mapping[str, Any], decoder: str) -> Any:
    """Parameters with some of them replaced.

    Parameters
    ----------
    parameters : dataclass
    values : mapping of str to Any
        New values by name; texts are read as the command line's.
    decoder : str
        Whose they are, for errors.

    Raises
    ------
    UsageError
        A name that there is not, a value of another type, or out of its range.
    """
    kinds = parameter_types(type(parameters))
    typed = {}
    for name, value in values.items():
        if name not in kinds:
            raise UsageError(_unknown(name, kinds, decoder))
        try:
            typed[name] = _read(value, kinds[name])
        except (KeyError, TypeError, ValueError):
            raise UsageError(
                f"decoder {decoder}: {name} is {value!r}; expected {_kind_words(kinds[name])}"
            ) from None
    try:
        return dataclasses.replace(parameters, **typed)
    except (CellrtError, ValueError) as error:
        raise UsageError(f"decoder {decoder}: {error}") from None


def parameter_types(parameters: type) -> dict[str, Any]:
    """Type of each parameter by name, in the order in which they are declared."""
    hints = typing.get_type_hints(parameters)
    return {field.name: hints[field.name] for field in dataclasses.fields(parameters)}


def parameter_lines(parameters: Any) -> list[str]:
    """What there is to set: a line with name, value and type, and an indented one that explains it.

    The second comes from the docstring and is missing where there is none, as under ``python -OO``.
    """
    explained = descriptions(type(parameters))
    lines = []
    for name, kind in parameter_types(type(parameters)).items():
        lines.append(f"{name}={_as_text(getattr(parameters, name))}  ({_kind_words(kind)})")
        if name in explained:
            lines.append(f"    {explained[name]}")
    return lines


def descriptions(parameters: type) -> dict[str, str]:
    """First sentence on each parameter, out of the numpydoc docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for one in reversed(parameters.__mro__):
        text = inspect.cleandoc(one.__doc__ or "")
        for section in _SECTIONS.finditer(text):
            for names, body in _ENTRIES.findall(section["body"]):
                words = re.sub(r":\w+:(?=`)", "", " ".join(body.split()))
                sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", words)[0].rstrip(".")
                found |= {name.strip(): sentence for name in names.split(",")}
    return found


def _unknown(name: str, known: Iterable[str], decoder: str) -> str:
    names = list(known)
    alike = difflib.get_close_matches(name, names, 1, cutoff=0.75)
    guess = f"; did you mean {alike[0]}?" if alike else ""
    has = f"it has {', '.join(names)}" if names else "it has none"
    return f"the decoder {decoder} has no parameter {name!r}; {has}{guess}"


def _read(value: Any, kind: Any) -> Any:
    """Turn a value, or what the command line has of one, into one of a type.

    Raises
    ------
    KeyError, TypeError, ValueError
        It is none.
    """
    if typing.get_origin(kind) is Literal:
        return {str(choice): choice for choice in typing.get_args(kind)}[str(value)]
    if typing.get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        kinds = typing.get_args(kind)
        return tuple(_read(part, one) for part, one in zip(parts, kinds, strict=True))
    if kind is str and isinstance(value, str):
        return value
    if kind is bool:
        return _WORDS[str(value).lower()]
    if kind not in (int, float) or isinstance(value, bool):
        raise ValueError
    number = float(value)
    if kind is float:
        return number
    if not number.is_integer():
        raise ValueError
    return int(number)


def _kind_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return f"{len(typing.get_args(kind))} values with commas between them"
    return _KINDS.get(kind, str(kind))


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    return str(value)
