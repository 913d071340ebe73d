"""One run at a time for one output."""

from __future__ import annotations

import errno
import multiprocessing
from pathlib import Path

import pytest

from cellrt import claim as claims
from cellrt.claim import claim
from cellrt.errors import InputError
from cellrt.files import atomic_outputs


def test_what_is_held_cannot_be_held_again(tmp_path: Path) -> None:
    held = [tmp_path / "a", tmp_path / "b"]
    with claim(held):
        with pytest.raises(InputError, match="another run is writing"), claim([tmp_path / "b"]):
            pytest.fail("the body must not run")
        with claim([tmp_path / "c"]):
            pass
    with claim(held):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), claim([tmp_path / "a"]):
        raise ValueError("broken")
    with claim([tmp_path / "a"]):
        pass
    assert list(tmp_path.iterdir()) == []


def count_up(folder: Path, times: int) -> None:
    """Add to a number in a file, as often as the file can be had."""
    number = folder / "number"
    done = 0
    while done < times:
        try:
            with claim([number]):
                number.write_text(str(int(number.read_text()) + 1))
            done += 1
        except InputError:
            continue


def test_processes_never_hold_one_file_together(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(tmp_path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "150"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_the_first_to_end_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(file: int) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(claims, "_lock_now", refuse)
    paths = {"a": tmp_path / "a.tif", "b": tmp_path / "b.csv"}

    def second() -> None:
        with atomic_outputs(paths) as temporary:
            for path in temporary.values():
                path.write_text("second")
            with atomic_outputs(paths) as others:
                for path in others.values():
                    path.write_text("first")

    with pytest.raises(InputError, match="exists already"):
        second()
    assert {path.name: path.read_text() for path in tmp_path.glob("[ab].*")} == {
        "a.tif": "first",
        "b.csv": "first",
    }
    assert not list(tmp_path.glob(".cellrt-*.tif"))
