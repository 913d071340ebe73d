"""An engine with its model in one file, for a machine without a network or a builder.

An engine is machine code, so whoever makes a bundle can run programs as whoever uses it. The hashes
in a bundle show damage, not its maker: a bundle is to be trusted as a program is.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cellrt.errors import EngineError, InputError
from cellrt.files import atomic_outputs, refuse_special
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import Gpu, nvidia_gpus, where_wanted
from cellrt.runtime.machine.gpu import open_device
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.engines.base import PRECISIONS, EngineSpec, Session
from cellrt.runtime.network.engines.choice import EngineChoice
from cellrt.runtime.network.engines.tensorrt.cache import EngineKey
from cellrt.runtime.network.engines.tensorrt.engine import open_engine
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS, TensorRT, open_runtime
from cellrt.runtime.network.engines.tensorrt.provide import this_system

FORMAT = 1
ENDING = ".bundle"
# What a damaged archive ends in, and a record that is none.
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile)
_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError)
_BEGIN = b"PK\x03\x04"
_GIVE = "give a file that `cellrt build -o` wrote"
_AGAIN = "copy it again, or build it again with `cellrt build -o`"
_RECORD, _MODEL, _ENGINE = "record.json", "model.onnx", "engine"
# More than any record, and than any model or engine of ours: what is larger is something else.
_LARGEST_RECORD, _LARGEST = 1 << 20, 4 << 30


def write_bundle(
    path: Path, model: ModelFile, engine: bytes, key: EngineKey, *, overwrite: bool = False
) -> str:
    """Write an engine, the model that it is of, and what both depend on, into one file.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    InputError, ResourceError
        As :func:`cellrt.files.atomic_outputs`.
    """
    content = model.content
    record = {
        "format": FORMAT,
        "key": asdict(key),
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
        "model_sha256": hashlib.sha256(content).hexdigest(),
    }
    parts = {_RECORD: json.dumps(record, indent=1).encode(), _MODEL: content, _ENGINE: engine}
    size = sum(map(len, parts.values()))
    with atomic_outputs(
        {"bundle": path}, overwrite=overwrite, needed_bytes=size, inputs=[model.path]
    ) as temporary:
        with zipfile.ZipFile(temporary["bundle"], "w") as archive:
            for name, data in parts.items():
                archive.writestr(zipfile.ZipInfo(name), data)  # the same bytes on every day
        digest = hashlib.sha256(temporary["bundle"].read_bytes()).hexdigest()
    return digest


@dataclass(frozen=True)
class Bundle:
    """A bundle that is open: its model is a file for as long as that lasts.

    Parameters
    ----------
    path : Path
    sha256 : str
        Of the file.
    key : EngineKey
        What the engine was built from and for.
    model : ModelFile
    """

    path: Path
    sha256: str
    key: EngineKey
    model: ModelFile

    def choose(self) -> EngineChoice:
        """The engine in the bundle as the one that the user asked for.

        Raises
        ------
        EngineError
            It does not fit this machine; the message says why.
        """
        flavour = self.key.library.partition(" ")[0]
        engine = BundledEngine(self.path, self.sha256, self.key, self.model.sha256)
        detail = engine.available(asked=True)
        spec = EngineSpec(flavour, "", "nvidia", True, frozenset(PRECISIONS))
        return EngineChoice(spec, detail, True, own=engine)


@contextmanager
def open_bundle(path: str | Path) -> Iterator[Bundle]:
    """Check a bundle, and put its model where it can be opened.

    Raises
    ------
    InputError
        It is no bundle, or damaged.
    """
    path = Path(path)
    digest, key, parts = _read(path)
    with TemporaryDirectory(prefix="cellrt-bundle-") as folder:
        file = Path(folder) / f"{Path(key.model).name}.onnx"
        file.write_bytes(parts[_MODEL])
        yield Bundle(path, digest, key, open_model(file))


def _read(path: Path) -> tuple[str, EngineKey, dict[str, bytes]]:
    """Hash of a bundle, what its engine was built from and for, and its contents, checked.

    All of it is of one reading: what is checked is what is taken.
    """
    data = _content(path)
    record, parts = _parts(path, data)
    try:
        known = record["format"]
        if known == FORMAT:
            key = EngineKey.of_record(record["key"])
            expected = {_ENGINE: record["engine_sha256"], _MODEL: record["model_sha256"]}
    except _NO_RECORD as error:
        raise InputError(f"the record in {path.name} is not as it was written; {_AGAIN}") from error
    if known != FORMAT:
        raise InputError(
            f"{path.name} is a bundle of format {known!r}, and this version of cellrt reads "
            f"{FORMAT}; build it again with this version"
        )
    for name, digest in expected.items():
        if hashlib.sha256(parts[name]).hexdigest() != digest:
            raise InputError(
                f"{path.name} is damaged: its {name} is not the one whose hash was recorded when "
                "it was built; copy it again"
            )
    return hashlib.sha256(data).hexdigest(), key, parts


def _content(path: Path) -> bytes:
    """All of a file that is an archive, at least at its beginning."""
    refuse_special(path, _GIVE)
    if path.is_dir():
        raise InputError(f"{path} is a folder and no engine in a file; {_GIVE}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; {_GIVE}")
    try:
        with path.open("rb") as file:
            head = file.read(len(_BEGIN))
            if not head:
                raise InputError(f"{path.name} is empty; {_AGAIN}")
            if head != _BEGIN:  # another file may be larger than the memory
                raise InputError(f"{path.name} is something else than an engine; {_GIVE}")
            return head + file.read()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror or error})") from error


def _parts(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Record of a bundle, and all its parts by name."""
    largest, parts = {_RECORD: _LARGEST_RECORD, _MODEL: _LARGEST, _ENGINE: _LARGEST}, {}
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            missing = sorted(set(largest) - set(archive.namelist()))
            if missing:
                raise InputError(
                    f"{path.name} is an archive of something else, without {missing[0]}; {_GIVE}"
                )
            for name, most in largest.items():
                if archive.getinfo(name).file_size > most:
                    raise InputError(f"{path.name} is no bundle: its {name} is too large; {_GIVE}")
                parts[name] = archive.read(name)
        record = json.loads(parts[_RECORD])
    except _DAMAGE as error:
        raise InputError(f"{path.name} is damaged, or not all of it is there; {_AGAIN}") from error
    return record, parts


@dataclass(frozen=True)
class BundledEngine:
    """The engine of a bundle, as the ladder has engines; read when it is loaded.

    Parameters
    ----------
    path : Path
    sha256 : str
        Of the file when it was checked.
    key : EngineKey
    model_sha256 : str
    """

    path: Path
    sha256: str
    key: EngineKey
    model_sha256: str

    def available(self, *, asked: bool = True) -> str:
        """Return library, GPU and bundle.

        Raises
        ------
        EngineError
            The engine does not fit the library, the GPU or the system.
        """
        library, gpu = self._library()
        misfits = list(_misfits(self.key, library, gpu))
        if misfits:
            raise EngineError(
                f"{self.path.name} does not fit this machine: {'; '.join(misfits)}; build it on a "
                "machine like this one, or segment without this file"
            )
        open_device()
        return (
            f"{library.flavour.name} {library.version} on {gpu.name}, from {self.path.name}, "
            f"sha256 {self.sha256[:16]}"
        )

    def check(self, model: ModelFile, tile: Shape, precision: str) -> None:
        """Refuse another model, tile or precision than the engine's.

        Raises
        ------
        EngineError
        """
        own = self.key.profile.tile
        if model.sha256 != self.model_sha256:
            raise EngineError(
                f"{self.path.name} is an engine of {self.key.model} and brings its model along; "
                "leave --model out"
            )
        if tile != own:
            raise EngineError(
                f"the engine in {self.path.name} takes tiles of {'x'.join(map(str, own))} voxels; "
                "leave --tile out"
            )
        if precision not in ("auto", self.key.precision):
            raise EngineError(
                f"the engine in {self.path.name} computes in {self.key.precision}; leave "
                "--precision out"
            )

    def tile(self, model: ModelFile, precision: str) -> Shape:
        """The tile (z, y, x) that the engine takes."""
        return self.key.profile.tile

    def load(
        self,
        model: ModelFile,
        tile: Shape,
        *,
        precision: str = "auto",
        note: Callable[[str], None] = lambda text: None,
    ) -> Session:
        """Load the engine and compare it with the CPU, once on this machine.

        Raises
        ------
        EngineError, ResourceError
            As :func:`~cellrt.runtime.network.engines.tensorrt.engine.open_engine`.
        InputError
            The file has changed since it was checked.
        """
        digest, _, parts = _read(self.path)
        if digest != self.sha256:
            raise InputError(f"{self.path} has changed since it was checked; start again")
        library, _ = self._library()
        return open_engine(library, parts[_ENGINE], self.key.precision, model, tile, note)

    def _library(self) -> tuple[TensorRT, Gpu]:
        flavour = self.key.library.partition(" ")[0]
        if flavour not in FLAVOURS:
            raise EngineError(
                f"{self.path.name} is for {flavour}, which this version of cellrt does not know; "
                "build it again with this version"
            )
        gpus, reason = nvidia_gpus()
        if not gpus:
            raise EngineError(
                f"the engine in {self.path.name} was built for {self.key.runs_on} and needs a GPU: "
                f"{where_wanted(reason)}; or leave --engine-file out to use the CPU"
            )
        return open_runtime(flavour), gpus[0]


def _misfits(key: EngineKey, library: TensorRT, gpu: Gpu) -> Iterator[str]:
    """Everything by which an engine does not fit a machine, in words."""
    here = f"{library.flavour.name} {library.version}"
    if key.library != here and not (key.profile.lean and library.runs_older(key.library)):
        lean = " with --lean, which it was not," if library.flavour.name == "tensorrt-lean" else ""
        yield f"it was built with {key.library}{lean} and {here} is here"
    if key.system not in ("any", this_system()):
        yield f"it is for {key.system}, and this is {this_system()}"
    if library.flavour.ahead_of_time:
        # Engines without a target run from compute capability 8 on.
        runs = (
            gpu.capability >= (8, 0)
            if key.compute_capability == "any"
            else (gpu.family in key.compute_capability.split("+"))
        )
        if not runs:
            yield (
                f"it was built for {key.runs_on}, and {gpu.name} has compute capability "
                f"{gpu.compute_capability}"
            )
        return
    found = (gpu.name, gpu.compute_capability, str(gpu.multiprocessors))
    if found != (key.gpu, key.compute_capability, key.multiprocessors):
        yield (
            f"it was built for {key.runs_on}, and this machine has {found[0]} with compute "
            f"capability {found[1]} and {found[2]} multiprocessors"
        )
