"""Results appear all together or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cellrt.errors import InputError, ResourceError, UsageError


@contextmanager
def atomic_outputs(
    paths: Mapping[str, Path],
    *,
    overwrite: bool = False,
    needed_bytes: int = 0,
    inputs: Sequence[Path] = (),
) -> Iterator[dict[str, Path]]:
    """Give temporary names to write to; rename all of them to the final ones at the end.

    On any exception, Ctrl-C included, the temporary files and the folders made for them are
    removed and results of an earlier run stay as they were. A temporary file that was never
    written is left out.

    Parameters
    ----------
    paths : mapping of str to Path
        Final path of each result. Missing folders are made.
    overwrite : bool
        Replace existing results.
    needed_bytes : int
        Free space to ask for before anything is written.
    inputs : sequence of Path
        Files that no result may replace, whatever ``overwrite`` says.

    Yields
    ------
    dict of str to Path
        For each key a path in the same folder, with the same ending.

    Raises
    ------
    InputError
        A result exists and ``overwrite`` is off; a folder cannot be written to.
    UsageError
        Two results, or a result and an input, are the same file.
    ResourceError
        The disk is full, or has less free than ``needed_bytes``.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_outputs({"table": folder / "cells.csv"}) as temporary:
    ...     _ = temporary["table"].write_text("id\\n1\\n")
    >>> sorted(p.name for p in folder.iterdir())
    ['cells.csv']
    """
    check_outputs(paths, overwrite=overwrite, inputs=inputs)
    token = secrets.token_hex(4)
    temporary = {k: p.with_name(f".cellrt-{token}-{p.name}") for k, p in paths.items()}
    made: list[Path] = []
    try:
        for path in paths.values():
            made += _make_folder(path.parent)
        for folder in sorted({p.parent for p in paths.values()}):
            _refuse_unwritable(folder, token)
            check_free_space(folder, needed_bytes)
        try:
            yield temporary
        except OSError as error:
            if _means_full_disk(error):
                raise _disk_full(next(iter(paths.values())).parent, needed_bytes) from error
            raise
        _rename_all({temporary[k]: p for k, p in paths.items() if temporary[k].exists()}, token)
    except BaseException:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write one file that appears whole or not at all, and is on the disk then."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_outputs(
    paths: Mapping[str, Path], *, overwrite: bool = False, inputs: Sequence[Path] = ()
) -> None:
    """Refuse results that would replace something; call it before the long computation too."""
    seen: dict[Path, Path] = {}
    input_files = {p.resolve() for p in inputs}
    for path in paths.values():
        resolved = path.resolve()
        if resolved in seen:
            raise UsageError(f"two results would be written to {path}; name them differently")
        seen[resolved] = path
        if resolved in input_files:
            raise UsageError(f"{path} is the input itself; name another file with -o")
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file for the result")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; use --overwrite to replace it")


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Raise `ResourceError` where the disk that holds ``folder`` has too little free space."""
    while not folder.exists():
        folder = folder.parent
    if needed_bytes and shutil.disk_usage(folder).free < needed_bytes:
        raise _disk_full(folder, needed_bytes)


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were new, outermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()][::-1]
    made = []
    try:
        for path in missing:
            path.mkdir()
            made.append(path)
    except OSError as error:
        for path in reversed(made):
            path.rmdir()
        raise InputError(
            f"cannot make the folder {folder} ({error.strerror}); name another one with -o"
        ) from error
    return made


def _refuse_unwritable(folder: Path, token: str) -> None:
    probe = folder / f".cellrt-{token}-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        if _means_full_disk(error):
            raise _disk_full(folder, 0) from error
        raise InputError(
            f"cannot write to {folder} ({error.strerror}); name another folder with -o"
        ) from error


def _rename_all(moves: Mapping[Path, Path], token: str) -> None:
    """Rename every file, or none: earlier results step aside until all new ones are in place."""
    aside: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for final in moves.values():
            if final.exists():
                backup = final.with_name(f".cellrt-{token}-old-{final.name}")
                os.replace(final, backup)
                aside[final] = backup
        for source, final in moves.items():
            os.replace(source, final)
            placed.append(final)
    except BaseException as error:
        for final in placed:
            with suppress(OSError):
                final.unlink()
        for final, backup in aside.items():
            os.replace(backup, final)
        if isinstance(error, OSError):
            raise InputError(
                f"cannot replace {error.filename} ({error.strerror}); is it open in another "
                "program? Close it and try again"
            ) from error
        raise
    for backup in aside.values():
        with suppress(OSError):
            backup.unlink()


def _means_full_disk(error: OSError) -> bool:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return True
    # numpy's tofile gives no error number.
    return error.errno is None and "requested and" in str(error) and "written" in str(error)


def _disk_full(folder: Path, needed_bytes: int) -> ResourceError:
    free = shutil.disk_usage(folder).free
    needed = f"about {_readable(needed_bytes)} needed, " if needed_bytes else ""
    return ResourceError(
        f"the disk of {folder} is full ({needed}{_readable(free)} free); "
        "make room or name another folder with -o"
    )


def _readable(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
