"""Results appear all together or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cellrt.claim import claim
from cellrt.disk_room import check_free_space, existing_folder, refuse_no_room
from cellrt.errors import InputError, UsageError

_EXISTS = "{path} exists already; use --overwrite to replace it, or name another file with -o"
# A Windows drive is one letter, and an array in a file stands behind an ending with a dot.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+]+):/+")
_LONGEST_NAME = 255
# Endings that are longer say nothing of a format.
_LONGEST_ENDING = 16


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
    removed and results of an earlier run stay as they were. Meanwhile no other run can write the
    same results, and a file that appears there all the same is kept. A temporary file that was
    never written is left out; an old result in its place goes, as it is of another run than those
    beside it.

    Parameters
    ----------
    paths : mapping of str to Path
        Final path of each result. Missing folders are made.
    overwrite : bool
        Replace existing results. Of a symbolic link the link is replaced; the file to which it
        points stays as it is. What is neither a file nor a link to one is never replaced.
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
        A result exists and ``overwrite`` is off, is no regular file, or has too long a name;
        another run is writing it; a folder cannot be written to.
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
    # Not the final names with something before them, which may be as long as names can be.
    temporary = {
        key: path.with_name(f".cellrt-{token}-{number}{_ending(path)}")
        for number, (key, path) in enumerate(paths.items())
    }
    made: list[Path] = []
    try:
        for path in paths.values():
            made += make_folder(path.parent)
        for folder in sorted({p.parent for p in paths.values()}):
            _refuse_unwritable(folder, token)
            check_free_space(folder, needed_bytes)
        with claim(paths.values()):
            # Once more: a run that held them may have ended just now.
            check_outputs(paths, overwrite=overwrite, inputs=inputs)
            try:
                yield temporary
            except OSError as error:
                refuse_no_room(error, next(iter(paths.values())).parent, needed_bytes)
                raise
            _rename_all({temporary[k]: p for k, p in paths.items()}, token, overwrite=overwrite)
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
    partial = path.with_name(f".cellrt-{secrets.token_hex(4)}.partial")
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
    """Refuse results that would replace something, or cannot be written.

    `atomic_outputs` does it by itself; call it where that comes after a long computation.
    """
    seen: set[str] = set()
    for path in paths.values():
        refuse_url(path, "name a file with -o and upload it afterwards")
        _refuse_impossible_name(path)
        # A link is replaced, not followed, so two names of one folder are two results.
        place = os.path.join(os.path.realpath(path.parent), path.name)
        if place in seen:
            raise UsageError(f"two results would be written to {path}; name them differently")
        seen.add(place)
        if any(_same_file(path, other) for other in inputs):
            raise UsageError(f"{path} is the input itself; name another file with -o")
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder; name a file for the result")
        refuse_special(path, "name another file with -o")
        if os.path.lexists(path) and not overwrite:
            raise InputError(_EXISTS.format(path=path))
        _refuse_no_folder(path.parent)


def foresee_outputs(
    paths: Mapping[str, Path],
    *,
    overwrite: bool = False,
    needed_bytes: int = 0,
    inputs: Sequence[Path] = (),
) -> None:
    """Refuse what `atomic_outputs` would refuse, and hold, make and write nothing.

    Whether another run is writing the same results is left out: it may have ended until then.
    """
    check_outputs(paths, overwrite=overwrite, inputs=inputs)
    for folder in sorted({path.parent for path in paths.values()}):
        if not os.access(existing_folder(folder), os.W_OK | os.X_OK):
            raise InputError(f"cannot write to {folder}; name another folder with -o")
        check_free_space(folder, needed_bytes)


def refuse_url(
    address: str | os.PathLike[str], action: str = "download it first and give the file"
) -> None:
    """Refuse an address such as ``https://host/a.tif`` or ``s3://bucket/a.zarr``.

    Parameters
    ----------
    address : str or path
        A path makes one slash of two.
    action : str
        What to do instead, where it is of another machine.

    Raises
    ------
    InputError
    """
    text = os.fspath(address)
    match = _URL.match(text)
    if match is None or os.path.exists(text):
        return
    scheme, rest = match["scheme"], text[match.end() :]
    if scheme.lower() == "file":
        action = f"give the path alone: {'/' * (os.name != 'nt')}{rest}"
    # The path of a URL on this machine begins with a slash of its own.
    shown = text if "://" in text else f"{scheme}:{'/' * (2 + (scheme.lower() == 'file'))}{rest}"
    raise InputError(f"{shown} is a URL, and files are meant here; {action}")


def means_folder(text: str) -> bool:
    """Whether a slash at the end says that a folder is meant, which paths forget."""
    return text.endswith(tuple(filter(None, (os.sep, os.altsep))))


def output_file(text: str) -> Path:
    """A name that a user gave for one file, refused where it is a folder's or none.

    A slash at the end means a folder to every command.

    Raises
    ------
    UsageError
    """
    if not text.strip():
        raise UsageError(f"the output is '{text}', which names no file; give a file's path")
    if means_folder(text):
        raise UsageError(f"{text} is a folder, and one file is written; name it, as in {text}NAME")
    return Path(text)


def refuse_other_ending(path: Path, endings: Sequence[str], what: str) -> None:
    """Refuse a result whose name says that it is something else.

    Parameters
    ----------
    path : Path
    endings : sequence of str
        In small letters, such as ``".csv"``.
    what : str
        What is written, such as ``"a table"``.

    Raises
    ------
    UsageError
    """
    if path.suffix.lower() not in endings:
        raise UsageError(
            f"the output {path} is {what}, and its name does not end in {' or '.join(endings)}; "
            f"name NAME{endings[0]} with -o"
        )


def refuse_special(path: Path, advice: str) -> None:
    """Refuse a URL, a pipe, a socket or a device, or a link to one.

    Reading one may wait for ever, and replacing one would destroy it. What does not exist is let
    pass.

    Raises
    ------
    InputError
    """
    refuse_url(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
        kind = next((name for matches, name in kinds if matches(mode)), "device")
        raise InputError(f"{path} is a {kind} and no regular file; {advice}")


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were new, outermost first.

    Raises
    ------
    InputError
        It cannot be made.
    """
    _refuse_no_folder(folder)
    missing = [p for p in (folder, *folder.parents) if not os.path.exists(p)][::-1]
    made: list[Path] = []
    try:
        for path in missing:
            with suppress(FileExistsError):  # another run makes it at the same time
                path.mkdir()
                made.append(path)
    except OSError as error:
        for path in reversed(made):
            path.rmdir()
        raise InputError(
            f"cannot make the folder {folder} ({error.strerror}); name another one with -o"
        ) from error
    return made


def _refuse_no_folder(folder: Path) -> None:
    """Refuse a folder that is none, or cannot be made where it is missing."""
    existing = existing_folder(folder)
    if not os.path.isdir(existing):
        raise InputError(
            f"cannot make the folder {folder} ({existing} is a file); name another one with -o"
        )


def _refuse_impossible_name(path: Path) -> None:
    """Refuse what no file can be called, before a system says so in words of its own."""
    if "\0" in str(path):
        raise UsageError(f"{str(path)!r} names no file; a name cannot hold a zero byte")
    length = len(os.fsencode(path.name)) if os.name != "nt" else len(path.name)
    longest = _LONGEST_NAME
    if sys.platform != "win32":
        with suppress(OSError, ValueError):
            longest = os.pathconf(existing_folder(path.parent), "PC_NAME_MAX")
    if length > longest:
        raise UsageError(
            f"the result's name {path.name[:24]}...{path.name[-24:]} has {length} bytes, and at "
            f"most {longest} are possible; name a shorter one with -o"
        )


def _same_file(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return os.path.realpath(path) == os.path.realpath(other)


def _ending(path: Path) -> str:
    """Ending of a name with the format's second half, such as ``.ome.tif``."""
    endings = ("".join(path.suffixes[-2:]), path.suffix, "")
    return next(ending for ending in endings if len(os.fsencode(ending)) <= _LONGEST_ENDING)


def _refuse_unwritable(folder: Path, token: str) -> None:
    probe = folder / f".cellrt-{token}-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        refuse_no_room(error, folder)
        raise InputError(
            f"cannot write to {folder} ({error.strerror}); name another folder with -o"
        ) from error


def _rename_all(moves: Mapping[Path, Path], token: str, *, overwrite: bool) -> None:
    """Rename every file, or none: earlier results step aside until all new ones are in place."""
    aside: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for number, final in enumerate(moves.values()):
            if os.path.lexists(final):
                if not overwrite:
                    raise FileExistsError(errno.EEXIST, "exists", str(final))
                backup = final.with_name(f".cellrt-{token}-old-{number}")
                os.replace(final, backup)
                aside[final] = backup
        for source, final in moves.items():
            if source.exists():
                _place(source, final)
                placed.append(final)
    except BaseException as error:
        for final in placed:
            with suppress(OSError):
                final.unlink()
        for final, backup in aside.items():
            os.replace(backup, final)
        if isinstance(error, FileExistsError):
            raise InputError(_EXISTS.format(path=error.filename)) from error
        if isinstance(error, OSError):
            raise InputError(
                f"cannot replace {error.filename} ({error.strerror}); is it open in another "
                "program? Close it and try again"
            ) from error
        raise
    for backup in aside.values():
        with suppress(OSError):
            backup.unlink()


def _place(source: Path, final: Path) -> None:
    """Rename a file to a name that nobody has, and that nobody can take meanwhile."""
    # An empty file takes the name, everywhere and for one process only; a rename alone would
    # replace what another run has written since the name was found free.
    os.close(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.replace(source, final)
    except BaseException:
        with suppress(OSError):
            final.unlink()
        raise
