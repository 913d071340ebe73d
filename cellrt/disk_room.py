"""Room for files: on the disk that takes them, and under a limit of the process."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from cellrt.errors import ResourceError
from cellrt.limits import largest_file


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Raise `ResourceError` where a folder's disk, or a limit of files, leaves too little space."""
    folder = existing_folder(folder)
    if needed_bytes and shutil.disk_usage(folder).free < needed_bytes:
        raise _disk_full(folder, needed_bytes)
    limit = largest_file()
    if limit is not None and limit < needed_bytes:
        raise _too_large(limit, needed_bytes)


def refuse_no_room(error: OSError, folder: Path | None, needed_bytes: int = 0) -> None:
    """Raise `ResourceError` where a file could not be written for lack of space.

    The folder is None where nobody knows what was written.
    """
    limit = largest_file()
    unnamed = _unnamed(error)
    if error.errno == errno.EFBIG or (unnamed and limit is not None):
        raise _too_large(limit, needed_bytes) from error
    if unnamed or error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        if folder is None:
            raise ResourceError(
                "a disk is full; make room where results, temporary files or the cache lie"
            ) from error
        raise _disk_full(existing_folder(folder), needed_bytes) from error


def existing_folder(folder: Path) -> Path:
    """The folder itself, or the innermost around it that exists."""
    return next(p for p in (folder, *folder.parents) if os.path.lexists(p) or p == p.parent)


def _unnamed(error: OSError) -> bool:
    """Whether numpy's tofile wrote less than it should, of which it gives no error number."""
    return error.errno is None and "requested and" in str(error) and "written" in str(error)


def _too_large(limit: int | None, needed_bytes: int) -> ResourceError:
    if limit is None:
        return ResourceError(
            "the file system takes no file as large as a result would be; name another folder "
            "with -o"
        )
    needed = f"up to {_readable(needed_bytes)} needed; " if needed_bytes else ""
    return ResourceError(
        f"this process may write no file above {_readable(limit)} (RLIMIT_FSIZE, ulimit -f); "
        f"{needed}raise the limit, or crop the stack"
    )


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
