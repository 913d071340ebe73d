"""Run the command line as a user does, in this process or in a fresh one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from cellrt.cli.main import _run


@dataclass(frozen=True)
class Finished:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def cellrt(capfd):
    """Call ``cellrt`` with arguments in this process."""

    def call(*arguments):
        capfd.readouterr()
        code = _run([str(a) for a in arguments], debug=False)
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return call


@pytest.fixture
def cellrt_process():
    """Call ``cellrt`` in a fresh interpreter."""

    def call(*arguments, **options):
        done = subprocess.run(
            [sys.executable, "-m", "cellrt", *(str(a) for a in arguments)],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return call
