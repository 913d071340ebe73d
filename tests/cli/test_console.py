"""Whatever letters a terminal has: the same run, the same files, nothing but plainer words."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from cellrt.cli.main import app

ENCODINGS = ("ascii", "cp932", "cp1252", "cp437", "utf-8")
COMMANDS = [(command.callback.__name__,) for command in app.registered_commands]
HAS_MICRO = {"cp1252", "cp437", "utf-8"}


def run(encoding, *words, **options):
    """One command with standard output and error in an encoding; bytes as they were printed."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-m", "cellrt", *map(str, words)],
        capture_output=True,
        check=False,
        env=environment,
        **options,
    )


@pytest.fixture
def stack(tmp_path):
    """A constant stack with letters in its name that no code page has all of."""
    path = tmp_path / "Zellkern µ³ – 細胞 é.tif"
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 0.5}
    image = np.full((4, 16, 16), 7, np.uint8)
    tifffile.imwrite(path, image, imagej=True, resolution=(2, 2), metadata=metadata)
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_terminal_without_the_letters_gets_plain_ones(stack, encoding):
    done = run(encoding, "segment", stack)
    printed = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 0, printed
    assert ("µm" if encoding in HAS_MICRO else "um") in printed
    assert "Zellkern" in printed
    text = stack.with_suffix(".run.json").read_bytes().decode("utf-8")
    assert json.loads(text)["input"]["path"] == str(stack)
    assert "µ³ – 細胞 é" in text


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("words", [(), *COMMANDS])
def test_help_is_help_everywhere(encoding, words):
    done = run(encoding, *words, "-h")
    assert done.returncode == 0, done.stderr
    assert "Usage: cellrt" in done.stdout.decode(encoding)
    if words == ("segment",):
        assert ("µm" if encoding in HAS_MICRO else "um") in done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_and_events_too(tmp_path, encoding):
    done = run(encoding, "segment", tmp_path / "細胞µ.tif", "--json")
    assert done.returncode == 3
    assert done.stderr.decode(encoding).startswith("cellrt: ")
    event = json.loads(done.stdout.decode(encoding).splitlines()[-1])
    assert "細胞µ.tif" in event["message"]


def test_a_locale_without_utf8_changes_no_file(stack):
    environment = {k: v for k, v in os.environ.items() if k not in ("LANG", "PYTHONIOENCODING")}
    environment |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "cellrt", "segment", stack],
        capture_output=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert b"um" in done.stderr
    assert "µm" in stack.with_suffix(".run.json").read_bytes().decode("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_that_is_no_text_is_printed_as_it_is(stack):
    odd = os.fsencode(stack.parent) + b"/a\xff.npy"
    np.save(stack.parent / "a.npy", np.full((4, 16, 16), 7, np.uint8))
    os.rename(stack.parent / "a.npy", odd)
    for words in ((b"evaluate", odd, odd), (b"segment", odd, b"--diameter", b"8")):
        done = subprocess.run(
            [sys.executable.encode(), b"-m", b"cellrt", *words],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        assert done.returncode == 0, done.stderr
        assert b"a\xff." in done.stdout


def test_nothing_is_printed_past_the_streams():
    """The parser's own ``echo`` writes UTF-8 where a terminal has only ASCII."""
    from pathlib import Path

    folder = Path(__file__).parents[2] / "cellrt" / "cli"
    assert not [p.name for p in folder.glob("*.py") if ".echo(" in p.read_text(encoding="utf-8")]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
@pytest.mark.parametrize("encoding", ["ascii", "cp932", "utf-8"])
def test_the_bar_of_a_terminal_too(stack, encoding):
    import pty

    image = np.random.default_rng(0).integers(0, 99, (8, 24, 24)).astype(np.uint8)
    tifffile.imwrite(stack, image, imagej=True, metadata={"axes": "ZYX"})
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cellrt", "segment", str(stack), "--overwrite"],
        stdout=subprocess.DEVNULL,
        stderr=its,
        env={**os.environ, "PYTHONIOENCODING": encoding, "TERM": "xterm"},
    )
    os.close(its)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # how the end of a terminal is told
        pass
    os.close(ours)
    assert process.wait() == 0, said
    assert "%" in said.decode(encoding)
