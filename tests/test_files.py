"""All results or none, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellrt.disk_room import check_free_space
from cellrt.errors import InputError, ResourceError, UsageError
from cellrt.files import atomic_outputs, check_outputs, write_whole


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def paths_in(folder: Path) -> dict[str, Path]:
    return {"labels": folder / "a.labels.tif", "table": folder / "a.cells.csv"}


def test_results_appear_together_at_the_end(tmp_path: Path) -> None:
    paths = paths_in(tmp_path / "new" / "folder")
    with atomic_outputs(paths) as temporary:
        assert set(temporary) == set(paths)
        for key, path in temporary.items():
            assert path.parent == paths[key].parent
            assert path.suffix == paths[key].suffix
            path.write_text(key)
            assert not paths[key].exists()
    assert names(tmp_path / "new" / "folder") == ["a.cells.csv", "a.labels.tif"]
    assert paths["table"].read_text(encoding="utf-8") == "table"


def write_all(paths: dict[str, Path], **options: Any) -> None:
    with atomic_outputs(paths, **options) as temporary:
        for path in temporary.values():
            path.write_text("new")


def write_half(paths: dict[str, Path], error: BaseException, **options: Any) -> None:
    with atomic_outputs(paths, **options) as temporary:
        temporary["labels"].write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_half(paths_in(tmp_path / "new" / "folder"), error())
    assert names(tmp_path) == []


def test_folders_with_other_files_stay(tmp_path: Path) -> None:
    def write_notes_and_break() -> None:
        with atomic_outputs(paths_in(tmp_path / "new")):
            (tmp_path / "new" / "notes.txt").write_text("mine")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_notes_and_break()
    assert names(tmp_path / "new") == ["notes.txt"]


def test_existing_results_are_refused_before_anything_happens(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths["table"].write_text("old")
    with pytest.raises(InputError, match=r"a\.cells\.csv exists already; use overwrite=True"):
        check_outputs(paths)
    with pytest.raises(InputError, match="overwrite=True"), atomic_outputs(paths):
        pytest.fail("the body must not run")
    assert paths["table"].read_text(encoding="utf-8") == "old"
    check_outputs(paths, overwrite=True)


def test_overwriting_replaces_all(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    for path in paths.values():
        path.write_text("old")
    write_all(paths, overwrite=True)
    assert names(tmp_path) == ["a.cells.csv", "a.labels.tif"]
    assert {path.read_text(encoding="utf-8") for path in paths.values()} == {"new"}


def test_a_failed_overwrite_keeps_the_old_results(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    for path in paths.values():
        path.write_text("old")
    with pytest.raises(ValueError, match="broken"):
        write_half(paths, ValueError("broken"), overwrite=True)
    assert names(tmp_path) == ["a.cells.csv", "a.labels.tif"]
    assert {path.read_text(encoding="utf-8") for path in paths.values()} == {"old"}


@pytest.mark.parametrize("failing", range(4))
def test_a_failed_rename_restores_the_old_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    paths = paths_in(tmp_path)
    for path in paths.values():
        path.write_text("old")
    replace = os.replace
    calls = []

    def fail_once(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing + 1:
            raise PermissionError(errno.EACCES, "in use", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(InputError, match="open in another program"):
        write_all(paths, overwrite=True)
    assert names(tmp_path) == ["a.cells.csv", "a.labels.tif"]
    assert {path.read_text(encoding="utf-8") for path in paths.values()} == {"old"}


def test_results_that_were_not_made_are_left_out(tmp_path: Path) -> None:
    with atomic_outputs(paths_in(tmp_path)) as temporary:
        temporary["table"].write_text("id")
    assert names(tmp_path) == ["a.cells.csv"]


def test_a_result_that_was_not_made_leaves_no_old_one(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    for path in paths.values():
        path.write_text("old")
    with atomic_outputs(paths, overwrite=True) as temporary:
        temporary["table"].write_text("new")
    assert names(tmp_path) == ["a.cells.csv"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)

    def write_late() -> None:
        with atomic_outputs(paths) as temporary:
            for path in temporary.values():
                path.write_text("late")
            paths["table"].write_text("mine")

    with pytest.raises(InputError, match="exists already"):
        write_late()
    assert names(tmp_path) == ["a.cells.csv"]
    assert paths["table"].read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    paths = paths_in(tmp_path)
    os.mkfifo(paths["table"])
    with pytest.raises(InputError, match="is a pipe"):
        write_all(paths, overwrite=overwrite)
    paths["labels"].symlink_to(paths["table"].name)
    with pytest.raises(InputError, match="is a pipe"):
        write_all({"labels": paths["labels"]}, overwrite=overwrite)
    assert paths["table"].is_fifo()
    assert paths["labels"].is_symlink()


def test_of_a_link_the_link_is_replaced(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    (tmp_path / "target").write_text("precious")
    paths["table"].symlink_to("target")
    with pytest.raises(InputError, match="exists already"):
        write_all(paths)
    write_all(paths, overwrite=True)
    assert not paths["table"].is_symlink()
    assert (tmp_path / "target").read_text() == "precious"


def test_the_longest_names_there_are(tmp_path: Path) -> None:
    write_all({"a": tmp_path / f"{'x' * 251}.tif"})
    write_all({"a": tmp_path / f"{'x' * 251}.tif"}, overwrite=True)
    write_all({"a": tmp_path / f"y.{'x' * 253}"})
    write_whole(tmp_path / f"{'z' * 251}.tif", b"data")
    with pytest.raises(UsageError, match="256 bytes"):
        check_outputs({"a": tmp_path / f"{'x' * 252}.tif"})
    with pytest.raises(InputError, match=r"cannot make the folder .*File name too long"):
        write_all({"a": tmp_path / f"{'x' * 256}" / "a.tif"})
    assert len(names(tmp_path)) == 3


def test_a_name_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="zero byte"):
        check_outputs({"a": tmp_path / "a\0.tif"})


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    stack = tmp_path / "a.labels.tif"
    stack.write_text("precious")
    with pytest.raises(UsageError, match="the input itself"):
        check_outputs(paths_in(tmp_path), overwrite=True, inputs=[stack])


def test_two_results_in_one_file_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two results"):
        check_outputs({"a": tmp_path / "x.tif", "b": tmp_path / "." / "x.tif"})


def test_a_folder_in_the_place_of_a_result(tmp_path: Path) -> None:
    (tmp_path / "a.labels.tif").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_outputs(paths_in(tmp_path), overwrite=True)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot make the folder"),
        atomic_outputs(paths_in(tmp_path / "file" / "folder")),
    ):
        pytest.fail("the body must not run")
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with (
        pytest.raises(InputError, match=r"cannot write to .* \(Permission denied\)"),
        atomic_outputs(paths_in(tmp_path)),
    ):
        pytest.fail("the body must not run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("100000 requested and 4096 written"),
    ],
)
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(ResourceError, match=r"is full \(about 5\.0 MB needed, .* free\)") as caught:
        write_half(paths_in(tmp_path), error, needed_bytes=5_000_000)
    assert caught.value.exit_code == 5
    assert names(tmp_path) == []


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_outputs(paths_in(tmp_path)):
        raise PermissionError(errno.EACCES, "denied")


def test_too_little_space_is_seen_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"1000000000\.0 GB needed"):
        check_free_space(tmp_path / "not" / "there", 10**18)
    with (
        pytest.raises(ResourceError),
        atomic_outputs(paths_in(tmp_path / "new"), needed_bytes=10**18),
    ):
        pytest.fail("the body must not run")
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_numpy_writing_to_a_full_device_is_recognised(tmp_path: Path) -> None:
    values = np.zeros(10_000_000, np.uint8)
    with (
        pytest.raises(ResourceError),
        atomic_outputs(paths_in(tmp_path)),
        open("/dev/full", "wb") as full,
    ):
        values.tofile(full)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_limit_of_file_sizes_is_named_before_the_work_or_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (2_000_000, -1))
    with (
        pytest.raises(ResourceError, match=r"no file above 2\.0 MB .*ulimit -f.* 5\.0 MB needed"),
        atomic_outputs(paths_in(tmp_path), needed_bytes=5_000_000),
    ):
        pytest.fail("the body must not run")
    for error in (OSError(errno.EFBIG, "large"), OSError("100000 requested and 4096 written")):
        with pytest.raises(ResourceError, match=r"no file above 2\.0 MB .*ulimit -f"):
            write_half(paths_in(tmp_path), error)
    assert names(tmp_path) == []


def test_a_file_too_large_for_the_file_system_is_no_bug(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="file system takes no file as large"):
        write_half(paths_in(tmp_path), OSError(errno.EFBIG, "large"))
    assert names(tmp_path) == []
