"""Engines on disk: found by everything they depend on, and loaded only if unchanged.

An engine is machine code. A folder of its user's own holds each one beside a JSON file that says
what it was built from and for, and the hash of its bytes; nothing else is ever loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cellrt.errors import EngineError, InputError, ResourceError
from cellrt.files import write_whole
from cellrt.runtime.network.engines.tensorrt.build import Profile
from cellrt.runtime.network.engines.tensorrt.library import capability

FOLDER_VARIABLE = "CELLRT_ENGINES"
# All that is ever written there: engines, what is kept beside them, what was found out about them,
# each called by a hash; and what a write that was cut off has left.
_OURS = re.compile(
    r"(?:.+-)?[0-9a-f]{16}(?:[0-9a-f]{16})?\.(engine|json|lock|timings|kernels|failed|verified)"
    r"|\.cellrt-[0-9a-f]{8}\.(partial)"
)


# How an engine that is there differs from one that is wanted.
_DIFFERS = {
    "cellrt": "it was built by cellrt {}, not {}",
    "precision": "it computes in {}, not in {}",
    "library": "it was built with {}, not with {}",
    "driver": "it is for driver {}, not for {}",
    "system": "it is for {}, not for {}",
    "profile": "it takes {}, not {}",
}


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on; a change in any of it asks for another engine.

    Parameters
    ----------
    model, model_sha256 : str
        Name, and hash of the whole ONNX file.
    cellrt : str
        Version of cellrt, which says how graphs are converted and engines built.
    precision : str
        What it computes in.
    library : str
        Flavour and full version of TensorRT.
    gpu, compute_capability, multiprocessors, driver : str
        The device, or the families it was built for ahead of time. Boards of one name and compute
        capability differ in their number of multiprocessors, as those of the Orin do.
    system : str
        Operating system and processor architecture; "any" for engines that run on all.
    profile : Profile
        Tile, batch and workspace.
    """

    model: str
    model_sha256: str
    cellrt: str
    precision: str
    library: str
    gpu: str
    compute_capability: str
    multiprocessors: str
    driver: str
    system: str
    profile: Profile

    @property
    def stem(self) -> str:
        """File name without ending: readable words, then a hash of the whole key."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.model}-{self.precision}-{self.library.split()[0]}-{digest[:16]}"

    @property
    def runs_on(self) -> str:
        """The GPUs that it is for, in words."""
        if self.multiprocessors != "any":
            return (
                f"{self.gpu} with compute capability {self.compute_capability} and "
                f"{self.multiprocessors} multiprocessors"
            )
        if self.compute_capability == "any":
            return "RTX GPUs from compute capability 8.0 on"
        families = self.compute_capability.split("+")
        numbers = " and ".join(map(capability, families))
        return f"{' and '.join(families)} (GPUs of compute capability {numbers})"

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> EngineKey:
        """Read what `asdict` made.

        Raises
        ------
        TypeError, ValueError, KeyError
            It is not that.
        """
        profile = record["profile"]
        z, y, x = (int(edge) for edge in profile["tile"])
        return cls(**record | {"profile": Profile(**profile | {"tile": (z, y, x)})})


@dataclass(frozen=True)
class Entry:
    """An engine in the cache as its record describes it.

    Parameters
    ----------
    key : EngineKey
    path : Path
    sha256 : str
    size_bytes : int
    built : str
        When, by the clock of the world.
    build_seconds : float
    chosen : str
        When `cellrt build` was last asked for it; empty for one that was built on the way.
    """

    key: EngineKey
    path: Path
    sha256: str
    size_bytes: int
    built: str
    build_seconds: float
    chosen: str = ""


@dataclass(frozen=True)
class EngineCache:
    """A folder of engines.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    def find(self, key: EngineKey) -> tuple[bytes | None, str]:
        """Look an engine up.

        Returns
        -------
        engine : bytes or None
            None where it has to be built.
        reason : str
            Why, in one line; empty when the engine was found.
        """
        entry = self.entry(key)
        if entry is None or entry.key != key:
            return None, self._difference(key)
        try:
            engine = entry.path.read_bytes()
        except OSError as error:
            return None, f"the engine cannot be read ({error.strerror})"
        if hashlib.sha256(engine).hexdigest() != entry.sha256:
            return None, "the engine's file is not the one that was recorded"
        return engine, ""

    def store(self, key: EngineKey, engine: bytes, build_seconds: float) -> Entry:
        """Write an engine and its record; both appear whole or not at all.

        Raises
        ------
        ResourceError
            The folder cannot be written, or the disk is full.
        """
        entry = Entry(
            key,
            self.folder / f"{key.stem}.engine",
            hashlib.sha256(engine).hexdigest(),
            len(engine),
            _now("seconds"),
            round(build_seconds, 3),
        )
        with self._writing():
            # The record comes last: an engine without one does not count.
            write_whole(entry.path, engine)
            self._record(entry)
        return entry

    def choose(self, key: EngineKey) -> None:
        """Note that an engine was asked for, so that it is taken before others that fit as well.

        Raises
        ------
        ResourceError
            The folder cannot be written.
        """
        entry = self.entry(key)
        if entry is not None:
            with self._writing():
                self._record(replace(entry, chosen=_now("microseconds")))

    def _record(self, entry: Entry) -> None:
        record = asdict(entry) | {"path": entry.path.name}
        write_whole(entry.path.with_suffix(".json"), json.dumps(record, indent=1).encode())

    def find_or_build(
        self,
        key: EngineKey,
        build: Callable[[], bytes],
        note: Callable[[str], None] = lambda text: None,
    ) -> bytes:
        """Look an engine up and build it where it is missing, in one process at a time.

        Parameters
        ----------
        key : EngineKey
        build : callable
            Builds the engine.
        note : callable
            Told in one line why an engine is built, and when another process is waited for.

        Raises
        ------
        ResourceError
            The folder cannot be written, or the disk is full.
        """
        engine, _ = self.find(key)
        if engine is not None:  # which needs no folder that can be written
            return engine
        with self._lock(key, note):
            engine, reason = self.find(key)
            if engine is None:
                note(f"building an engine of {key.model} in {key.precision}: {reason}")
                begin = time.perf_counter()
                engine = build()
                self.store(key, engine, time.perf_counter() - begin)
        return engine

    def timings(self, key: EngineKey) -> Path:
        """File for the timings of kernels, which all engines for one GPU share."""
        place = (
            *(key.library, key.gpu, key.compute_capability, key.multiprocessors, key.driver),
            key.system,
        )
        digest = hashlib.sha256(json.dumps(place).encode()).hexdigest()
        return self.folder / f"{digest[:16]}.timings"

    def kernels(self, *facts: str) -> Path:
        """File for the kernels that an engine compiles where it runs."""
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.kernels"

    def entry(self, key: EngineKey) -> Entry | None:
        """The record of an engine; None where there is none that can be read."""
        return self._entry(self.folder / f"{key.stem}.json")

    def entries(self) -> list[Entry]:
        """All engines with a readable record, by name."""
        found = (self._entry(path) for path in sorted(self.folder.glob("*.json")))
        return [entry for entry in found if entry is not None]

    def clear(self) -> int:
        """Remove all engines and whatever is known of them; return how many engines there were.

        What is called otherwise than cellrt's files stays: the folder may be one of its user's.

        Raises
        ------
        ResourceError
            A file cannot be removed.
        """
        count = 0
        with self._writing():
            for path in list(self.folder.glob("*")):
                if ours := _OURS.fullmatch(path.name):
                    path.unlink()
                    count += ours[1] == "engine"
        return count

    def _difference(self, key: EngineKey) -> str:
        """What sets the wanted engine apart from the most similar one there is."""
        names = [field.name for field in fields(EngineKey)]
        alike = [
            entry.key
            for entry in self.entries()
            if (entry.key.model, entry.key.library.split()[0])
            == (key.model, key.library.split()[0])
        ]
        if not alike:
            return "there is none yet"
        changes = [
            [name for name in names if getattr(other, name) != getattr(key, name)]
            for other in alike
        ]
        index = min(range(len(alike)), key=lambda i: len(changes[i]))
        # Of RTX GPUs and of one GPU, what stands for the place where it runs is one thing.
        other, places = alike[index], ("gpu", "compute_capability", "multiprocessors")
        words = []
        for name in changes[index]:
            if name in places:
                text = f"it is for {other.runs_on}, not for {key.runs_on}"
            elif name == "model_sha256":
                # Another precision is another file, whether or not the model changed.
                text = "" if "precision" in changes[index] else "the model file changed"
            else:
                text = _DIFFERS[name].format(getattr(other, name), getattr(key, name))
            if text and text not in words:
                words.append(text)
        if not words:
            return "its record was damaged"
        return f"the engine that is there differs: {', and '.join(words)}"

    def _entry(self, path: Path) -> Entry | None:
        """Read a record; None where it is missing or cannot be understood."""
        try:
            record: dict[str, Any] = json.loads(path.read_bytes())
            key = EngineKey.of_record(record.pop("key"))
            # Only ever a file in this folder, whatever the record says.
            engine = self.folder / Path(record.pop("path")).name
            return Entry(key=key, path=engine, **record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    @contextlib.contextmanager
    def _lock(self, key: EngineKey, note: Callable[[str], None]) -> Iterator[None]:
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise EngineError(
                f"the engine cache needs filelock ({error}); run `pip install filelock`"
            ) from None
        with self._writing():
            lock = FileLock(self.folder / f"{key.stem}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                note("another process is building this engine; waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise ResourceError(
                f"the engine cache {self.folder} cannot be written ({error.strerror or error}); "
                f"free space there, or set {FOLDER_VARIABLE} to another folder"
            ) from error


def _now(precision: str) -> str:
    return datetime.now(timezone.utc).isoformat(timespec=precision)


def default_cache() -> EngineCache:
    """The user's own cache, or the folder that the environment variable CELLRT_ENGINES names.

    Raises
    ------
    InputError
        The variable names a file.
    EngineError
        No variable is set and platformdirs is not installed.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        if Path(named).is_file():
            raise InputError(f"{FOLDER_VARIABLE} names a file, {named}; expected a folder")
        return EngineCache(Path(named))
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise EngineError(
            f"the engine cache needs platformdirs ({error}); run `pip install platformdirs`, "
            f"or set {FOLDER_VARIABLE} to a folder"
        ) from None
    return EngineCache(user_cache_path("cellrt", appauthor=False) / "engines")
