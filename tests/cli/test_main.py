"""The command as a whole: help, version, unknown commands, bugs."""

from __future__ import annotations

import errno
import gc
import json
import sys

import pytest

import cellrt as package
from cellrt.cli import main as cli


def test_version_and_help(cellrt_process):
    assert cellrt_process("--version").out.strip() == f"cellrt {package.__version__}"
    done = cellrt_process("--help")
    assert done.code == 0
    for command in ("segment", "models", "simulate", "train", "evaluate", "encode", "decode"):
        assert command in done.out


@pytest.mark.parametrize("arguments", [["frobnicate"], ["segment"], ["segment", "--wat"]])
def test_wrong_usage_is_code_2(cellrt, arguments):
    done = cellrt(*arguments)
    assert done.code in (0, 2) if arguments == ["segment"] else done.code == 2
    assert "Traceback" not in done.err


def test_what_a_program_leaves_is_not_looked_through_where_it_ends(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cellrt", "--version"])
    assert gc.get_freeze_count() == 0
    try:
        for arguments, ends in ((["--version"], False), (None, True)):
            with pytest.raises(SystemExit):
                cli.main(arguments)
            assert (gc.get_freeze_count() > 0) == ends
    finally:
        gc.unfreeze()


def test_a_bug_is_one_line_and_code_1_and_debug_shows_where(monkeypatch, capfd):
    def broken(*args, **kwargs):
        raise RuntimeError("the unexpected")

    monkeypatch.setattr(cli, "app", broken)
    assert cli._run(["models"], debug=False) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "--debug" in err
    assert cli._run(["models"], debug=True) == 1
    assert "Traceback" in capfd.readouterr().err


def test_running_out_of_memory_is_code_5(monkeypatch, capfd):
    def hungry(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(cli, "app", hungry)
    assert cli._run([], debug=False) == 5
    assert "memory" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "words"), [(None, "a disk is full"), ("there/a", "disk of ")])
def test_a_full_disk_is_named_where_it_is_known(monkeypatch, capfd, name, words):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", name)

    monkeypatch.setattr(cli, "app", full)
    assert cli._run([], debug=False) == 5
    err = capfd.readouterr().err
    assert words in err
    assert name is not None or "disk of ." not in err


def test_errors_are_events_too_when_json_is_asked_for(cellrt, tmp_path):
    done = cellrt("segment", tmp_path / "none.tif", "--json")
    event = json.loads(done.out.splitlines()[-1])
    assert event["event"] == "error"
    assert event["exit_code"] == done.code == 3


def test_ctrl_c_inside_of_a_lock_is_still_ctrl_c(monkeypatch, capfd):
    def interrupted(*args, **kwargs):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(cli, "app", interrupted)
    assert cli._run(["models"], debug=False) == 130
    assert capfd.readouterr().err.startswith("cellrt: interrupted")
