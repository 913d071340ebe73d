"""Standard output and error that are closed, full or left by their reader, and ends by signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams and signals of Unix")
ENDINGS = (".labels.tif", ".cells.csv", ".preview.png", ".run.json")
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


@pytest.fixture
def stack(tmp_path):
    """A blank stack: the network does not run, and results come all the same."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((8, 24, 24), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    return path


def shell(line, *words):
    """Run ``cellrt`` with words as ``"$@"`` of a line of the shell."""
    cellrt = (sys.executable, "-m", "cellrt")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *cellrt, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def has_results(stack):
    names = {path.name for path in stack.parent.iterdir()}
    return names == {stack.name} | {f"stack{ending}" for ending in ENDINGS}


@pytest.mark.parametrize("line", ['"$@" 2>&-', '"$@" >&-', '"$@" <&- >&- 2>&-'])
def test_closed_streams_do_not_end_a_run(stack, line):
    done = shell(line, "segment", stack)
    assert done.returncode == 0, done.stderr
    assert has_results(stack)
    assert "Reading" not in done.stdout


@pytest.mark.parametrize("words", [("models",), ("models", "--json"), ("-h",), ("frobnicate",)])
def test_other_commands_need_no_streams_either(words):
    done = shell('"$@" >&- 2>&-', *words)
    assert done.returncode == (2 if words == ("frobnicate",) else 0)


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    """A library that writes to number 2 would write into it."""
    program = (
        "import os, sys; from cellrt.cli.console import make_printable; make_printable();"
        f"file = open({str(tmp_path / 'result')!r}, 'w'); os.write(2, b'said'); file.close()"
    )
    subprocess.run(["bash", "-c", f'"{sys.executable}" -c "$1" 2>&-', "bash", program], check=True)
    assert (tmp_path / "result").read_text() == ""


def test_a_bar_needs_no_standard_error(monkeypatch, capsys):
    from cellrt.runtime.progress_bar import Terminal

    monkeypatch.setattr(sys, "stderr", None)
    shown = Terminal()
    shown.stage("read", 0, "")
    shown.phase("Reading", 0.5)
    shown.note("odd", warning=True)
    shown.close()
    assert capsys.readouterr().out == ""


@needs_full
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_full_standard_output_is_named_and_the_results_are_there(stack, words):
    done = shell('"$@" >/dev/full', "segment", stack, *words)
    assert done.returncode == 5
    line = done.stderr.splitlines()[-1]
    assert line.startswith("cellrt: standard output cannot be written (No space left")
    assert has_results(stack)


@needs_full
def test_a_full_standard_error_ends_nothing(stack):
    assert shell('"$@" 2>/dev/full', "segment", stack).returncode == 0
    assert has_results(stack)
    assert shell('"$@" >/dev/full 2>&1', "models").returncode == 5


@pytest.mark.parametrize("words", [(), ("--json",), ("-q",)])
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_reader_that_has_had_enough_stops_nothing(stack, words, reader):
    done = shell(f'"$@" | {reader}', "segment", stack, *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
    assert has_results(stack)


@pytest.mark.parametrize("words", [("models",), ("-h",), ("segment", "--help"), ("--version",)])
def test_other_commands_may_be_read_in_part(words):
    done = shell('"$@" 2>&1 | true', *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pipe_that_does_not_wait_gets_everything():
    read, write = os.pipe()
    os.set_blocking(write, False)
    program = "from cellrt.cli.console import make_printable; make_printable(); print('x' * 10**6)"
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=write)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        assert len(file.read()) == 10**6 + 1
    assert writer.wait() == 0


def test_a_broken_pipe_elsewhere_is_no_end_without_a_word(monkeypatch, cellrt):
    from cellrt.runtime.model import file

    def broken(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(file, "bundled_models", broken)
    done = cellrt("models")
    assert done.code == 1
    assert "internal error: BrokenPipeError" in done.err


# A run that waits inside of what it holds.
HOLD = """
import sys, time
from cellrt.runtime import run
def wait(*_):
    print("held", flush=True)
    time.sleep(120)
run.begin = wait
from cellrt.cli.main import main
main(sys.argv[1:])
"""


def held(stack, prefix=()):
    run = subprocess.Popen(
        [*prefix, sys.executable, "-c", HOLD, "segment", str(stack)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests under nohup has them start with a signal ignored.
        preexec_fn=None if prefix else lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert run.stdout.readline() == "held\n", run.stderr.read()
    return run


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGXCPU"])
def test_whatever_ends_a_run_leaves_nothing(stack, name):
    run = held(stack)
    assert len(list(stack.parent.iterdir())) > 1
    run.send_signal(getattr(signal, name))
    run.send_signal(getattr(signal, name))
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert err.splitlines()[-1].startswith("cellrt: interrupted")
    assert list(stack.parent.iterdir()) == [stack]


def test_nohup_is_obeyed(stack):
    run = held(stack, prefix=["nohup"])
    run.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert run.poll() is None
    run.terminate()
    run.communicate(timeout=60)
    assert run.returncode == 130


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_printed_is_as_before(stack, words):
    done = shell('"$@"', "segment", stack, *words)
    assert done.returncode == 0
    if words:
        assert [json.loads(line) for line in done.stdout.splitlines()][-1]["event"] == "result"
    else:
        assert done.stdout.startswith("0 cells")
