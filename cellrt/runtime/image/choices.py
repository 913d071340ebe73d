"""Which of several was meant: a channel, a time point, an image of a file, by number or by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellrt.errors import InputError, UsageError
from cellrt.runtime.image.stored import Provenance


def refuse_no_number(name: str, value: object, *, or_name: bool = False) -> None:
    """Refuse what Python takes for a number although it is none that counts, as True and 1.5.

    Raises
    ------
    UsageError
    """
    if value is None or (or_name and isinstance(value, str)):
        return
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        expected = "a whole number, counted from 1" + (", or a name" if or_name else "")
        raise UsageError(f"--{name} is {value!r}; expected {expected}")


def find_channel(channel: int | str, names: Sequence[str], where: str) -> int:
    """Index from 0 of a channel given by its name or its number from 1.

    A string is a number where it is one that counts a channel, else a name, such as ``"561"`` for
    a laser line: every channel can be reached, whatever channels are called.
    """
    refuse_no_number("channel", channel, or_name=True)
    number = _number(channel, names)
    if number is None:
        wanted = str(channel).strip()
        for same in (str.__eq__, lambda name, other: name.lower() == other.lower()):
            matching = [i for i, name in enumerate(names) if same(name, wanted)]
            if len(matching) == 1:
                return matching[0]
            if matching:
                numbers = " and ".join(str(i + 1) for i in matching)
                raise InputError(
                    f"{where}: channels {numbers} are both called {wanted!r}; choose one by its "
                    "number, as in --channel 1"
                )
        raise InputError(
            f"{where}: has no channel {channel!r}; there are {len(names)}, counted from 1: "
            f"{_list_channels(names)}"
        )
    return number - 1


def taken_by_number(option: str, wanted: str, index: int, names: Sequence[str]) -> tuple[str, ...]:
    """Warn where what was taken for a number is the name of another one.

    Parameters
    ----------
    option : {"channel", "series"}
    wanted : str
        As it was given.
    index : int
        From 0, of the one that was taken.
    names : sequence of str
    """
    others = [i + 1 for i, name in enumerate(names) if name == wanted.strip() and i != index]
    if not others:
        return ()
    called = f", called {names[index]!r}" if names[index] else ""
    return (
        f"--{option} {wanted} was taken for a number, that of {option} {index + 1} of "
        f"{len(names)}{called}; for the one that is called {wanted.strip()!r} give --{option} "
        f"{others[0]}",
    )


def _number(channel: int | str, names: Sequence[str]) -> int | None:
    """What was given, if it is a number that counts a channel."""
    try:
        number = int(channel)
    except ValueError:
        return None
    return number if 1 <= number <= len(names) else None


def choose_channel(
    channel: int | str | None, names: tuple[str, ...], where: str, letters: str
) -> tuple[int, Provenance]:
    if channel is not None:
        index = find_channel(channel, names, where)
        how = "name" if _number(channel, names) is None else "number"
        standard = f"channel {index + 1}"
        called = "" if names[index] == standard else f", called {names[index]!r}"
        words = f"{standard} of {len(names)}{called}, chosen by {how}"
        return index, Provenance("user", words)
    if len(names) == 1:
        return 0, Provenance("file", "the only channel")
    hint = "" if "Z" in letters else "; if they are slices, say so with --axes"
    raise InputError(
        f"{where}: has {len(names)} channels ({_list_channels(names)}); "
        f"choose one with --channel 1 to --channel {len(names)}{hint}"
    )


def _list_channels(names: Sequence[str], most: int = 6) -> str:
    shown = [f"{i + 1} = {name}" for i, name in enumerate(names[:most])]
    return ", ".join(shown) + (", ..." if len(names) > most else "")
