"""A function in a process of its own: its result, or what became of it, and never a crash here."""

from __future__ import annotations

import os
import sys
import time

import pytest

from cellrt.errors import EngineError
from cellrt.runtime.machine.apart import call_apart
from cellrt.runtime.machine.hardware import cpu_has_bf16


def test_it_gives_the_result():
    assert call_apart(60, divmod, 17, 5) == (3, 2)
    assert call_apart(60, cpu_has_bf16) == cpu_has_bf16()


def test_what_is_printed_does_not_mix_with_the_answer(capfd):
    assert call_apart(60, os.system, "echo noise; echo noise >&2") == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (os.abort, (), "SIGABRT"),
        (os._exit, (7,), "code 7"),
        (int, ("no number",), "ValueError: invalid literal"),
        (open, ("/nowhere/at/all",), "FileNotFoundError"),
    ],
)
def test_what_became_of_it_is_one_line(function, arguments, said):
    with pytest.raises(EngineError, match=said) as raised:
        call_apart(60, function, *arguments)
    assert "\n" not in str(raised.value)


def test_one_that_hangs_is_ended():
    begin = time.monotonic()
    with pytest.raises(EngineError, match="did not answer in 1 seconds"):
        call_apart(1, time.sleep, 60)
    assert time.monotonic() - begin < 50
