"""How many cores and how much memory this process may use, and who says so.

The operating system knows what the machine has; containers and batch systems grant less, through
the scheduler, control groups (cgroup v1 and v2) or limits of the process.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

from cellrt.errors import InputError, ResourceError, UsageError

# Of a batch system and of OpenMP programs: what a user or an administrator says a process may use.
_VARIABLES = ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS")
_MEMORY_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
# Limits of the process: name, what counts, who sets it, and the least with which a small stack was
# segmented on two cores, with a fifth to spare. Below it engines crash, or never return.
_PROCESS_LIMITS = (
    ("RLIMIT_AS", "vms", "ulimit -v", 1_200_000_000),
    ("RLIMIT_DATA", "data", "ulimit -d", 480_000_000),
)
_NO_MEMORY = re.compile(
    r"can't alloc|cannot allocate|failed to map segment|can't start new thread|bad_?alloc"
    r"|bad allocation|out of memory|(not enough|insufficient) memory"
    r"|resource temporarily unavailable",
    re.IGNORECASE,
)
_UNLIMITED = 1 << 60  # what cgroup v1 says for no limit is a little below 2**63


class Cores(NamedTuple):
    """Cores that may be used, what limits them, and whether libraries have to be told.

    ``granted`` says that there are fewer than the operating system lets this process run on.
    """

    number: int
    source: str
    granted: bool = True


class Memory(NamedTuple):
    """Bytes that can be had without swapping, of how many in all, and what limits them."""

    free: int
    limit: int
    source: str


class _Group(NamedTuple):
    """A control group: its name, and the folder where its files are."""

    name: str
    folder: Path


def usable_cores(root: Path = Path("/")) -> Cores:
    """Cores this process may use: the fewest that anything grants, at least one.

    Parameters
    ----------
    root : Path
        Where the files of the system lie.
    """
    granted = [_affinity()]
    for name in _VARIABLES:
        value = os.environ.get(name, "").partition(",")[0]
        if value.isdecimal() and int(value) > 0:
            granted.append(Cores(int(value), name))
    return min([*granted, *_quotas(root)], key=lambda cores: cores.number)


def free_memory(root: Path = Path("/")) -> Memory:
    """Memory this process may still take: the least that anything leaves.

    What a control group keeps of files that nobody has read for a while counts as free, as the
    system takes it back first.
    """
    machine = psutil.virtual_memory()
    found = [Memory(machine.available, machine.total, "the machine")]
    for group in _memory_groups(root):
        found += _memory_of(group)
    found += [memory for memory, _ in _of_process()]
    return min(found, key=lambda memory: memory.free)


def check_process_limits() -> None:
    """Refuse to begin under a limit in which the libraries alone cannot live.

    Some of them crash or wait for ever there instead of saying so.

    Raises
    ------
    ResourceError
    """
    for memory, least in _of_process():
        if memory.limit < least:
            raise ResourceError(
                f"{memory.source} allows {memory.limit / 1e9:.3g} GB and the libraries alone take "
                f"about {least / 1e9:.2g} GB of it; raise the limit"
            )


def out_of_memory() -> str:
    """What to say where memory has run out."""
    limits = [f"{memory.source} allows {memory.limit / 1e9:.3g} GB" for memory, _ in _of_process()]
    why = f" ({' and '.join(limits)})" if limits else ""
    advice = "raise the limit" if limits else "close other programs"
    return f"out of memory{why}; {advice}, crop the stack, or give a larger --diameter"


def means_no_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, comes from too little memory in this process.

    Libraries say so in many ways; that of a GPU is another matter.
    """
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        text = _own_words(error)
        if _NO_MEMORY.search(text) and "cuda" not in text.lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _own_words(error: BaseException) -> str:
    """What an error says by itself, without names of files, which may be anything.

    Those of input and of usage are our own words, those of engines are the library's. Of the
    system's errors, EAGAIN says that a file is locked or has nothing to read, in the words in which
    C++ says that no thread can be started.
    """
    ours = isinstance(error, InputError | UsageError)
    if ours or getattr(error, "errno", None) == errno.EAGAIN:
        return ""
    named = isinstance(error, OSError) and error.filename is not None
    return str(error.strerror if named else error)  # type: ignore[attr-defined]


def largest_file() -> int | None:
    """Bytes a file may have that this process writes (``ulimit -f``); None where any will do."""
    return _limit("RLIMIT_FSIZE")


def _of_process() -> Iterator[tuple[Memory, int]]:
    """Limits of this process, each with what libraries, engine and threads take at the least."""
    for name, used, command, least in _PROCESS_LIMITS:
        limit = _limit(name)
        if limit is not None:
            left = max(0, limit - getattr(psutil.Process().memory_info(), used, 0))
            yield Memory(left, limit, f"{name} ({command})"), least


def _limit(name: str) -> int | None:
    """A limit of this process; None where there is none, as on Windows."""
    try:
        import resource

        limit, _ = resource.getrlimit(getattr(resource, name))
    except (ImportError, AttributeError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit


def _affinity() -> Cores:
    every = psutil.cpu_count() or 1
    try:
        # Asked for dozens of times an image: the system's own call takes a microsecond.
        if hasattr(os, "sched_getaffinity"):
            allowed = len(os.sched_getaffinity(0))
        else:
            allowed = len(psutil.Process().cpu_affinity())
    except (AttributeError, OSError, psutil.Error):  # macOS has none
        return Cores(every, "the machine", granted=False)
    return Cores(allowed, "the machine" if allowed >= every else "CPU affinity", granted=False)


@functools.cache
def _quotas(root: Path) -> tuple[Cores, ...]:
    """Shares of time that control groups grant; they hardly change while a process runs."""
    found = []
    for group in _groups("cpu", root):
        words = [_read(group, name) or "" for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        words = (_read(group, "cpu.max") or " ".join(words)).split()
        # "max" and -1 are no limit.
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            count = max(1, math.ceil(int(words[0]) / int(words[1])))
            found.append(Cores(count, f"CPU quota of control group {group.name}"))
    return tuple(found)


@functools.cache
def _memory_groups(root: Path) -> tuple[_Group, ...]:
    """Where limits are found; a process hardly moves, and each image asks for them."""
    return tuple(_groups("memory", root))


def _memory_of(group: _Group) -> Iterator[Memory]:
    lines = [line.split() for line in (_read(group, "memory.stat") or "").splitlines()]
    stat = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}
    limits = [int(text) for name in _MEMORY_FILES if (text := _read(group, name) or "").isdecimal()]
    # What v1 knows of the groups above, which a container may not see.
    limits += [stat[name] for name in ("hierarchical_memory_limit",) if name in stat]
    used = _read(group, "memory.current") or _read(group, "memory.usage_in_bytes") or "0"
    limit = min(limits, default=_UNLIMITED)
    if limit < _UNLIMITED:
        cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
        free = limit - max(0, int(used) - cached)
        yield Memory(max(0, free), limit, f"memory limit of control group {group.name}")


def _groups(controller: str, root: Path) -> Iterator[_Group]:
    """Control groups that this process belongs to, each with all those above it."""
    places = dict(_memberships(root))
    for kind, top, mounted in _mounts(root):
        if controller not in kind and kind != {"unified"}:
            continue
        place = next((path for key, path in places.items() if kind & set(key.split(","))), "/")
        inside = PurePosixPath(place)
        if inside.is_relative_to(top):
            inside = PurePosixPath("/") / inside.relative_to(top)
        elif ".." in inside.parts or not (mounted / str(inside).lstrip("/")).is_dir():
            inside = PurePosixPath("/")  # of another namespace: all that can be seen is the mount
        for group in (inside, *inside.parents):
            yield _Group(str(group), mounted / str(group).lstrip("/"))


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Controllers and group of each hierarchy; "unified" for that of v2."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield controllers or "unified", path


def _mounts(root: Path) -> Iterator[tuple[set[str], str, Path]]:
    """Controllers of each mounted hierarchy, the group that is its top, and the folder."""
    for line in _lines(root / "proc/self/mountinfo"):
        place, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        words = place.split()
        if kind in ("cgroup", "cgroup2") and len(words) > 4:
            names = {"unified"} if kind == "cgroup2" else set(options.split()[-1].split(","))
            yield names, words[3], root / words[4].lstrip("/")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _read(group: _Group, name: str) -> str | None:
    """A file of a group; None where it has none, or it cannot be read."""
    try:
        return (group.folder / name).read_text().strip()
    except (OSError, ValueError):
        return None
