"""TensorRT and TensorRT-RTX as one library: found, checked and told apart in one place.

Both offer the same Python interface. They differ in where engines run: TensorRT builds for the GPU
in the machine, TensorRT-RTX builds ahead of time for families of GPUs, on a machine without one
too.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from cellrt.errors import EngineError, UsageError, first_line
from cellrt.runtime.machine.driver import NEEDS_DRIVER, Gpu, install, nvidia_driver, on_jetson


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries, installed or not.

    Parameters
    ----------
    name : str
        As `--engine` takes it.
    module : str
        What is imported.
    oldest, newest : (int, ...)
        First version that works and the last major version that is known.
    ahead_of_time : bool
        Engines can be built for GPUs that are not in the machine.
    title : str
        For people.
    """

    name: str
    module: str
    oldest: tuple[int, ...]
    newest: int
    ahead_of_time: bool
    title: str

    @property
    def without_targets(self) -> UsageError:
        """What to say where targets are given to one that builds for the GPU here."""
        return UsageError(
            f"{self.name} builds for the GPU in this machine only, not for a --target; use "
            "--engine tensorrt-rtx to build for another one"
        )


FLAVOURS = {
    # JetPack 6's has strongly typed networks, which take every precision from the graph, as in 11.
    "tensorrt": Flavour("tensorrt", "tensorrt", (10, 3), 11, False, "TensorRT"),
    "tensorrt-rtx": Flavour("tensorrt-rtx", "tensorrt_rtx", (1, 2), 1, True, "TensorRT-RTX"),
}

# Runs engines of TensorRT that were built for it and has no builder: the smallest installation.
LEAN = Flavour("tensorrt-lean", "tensorrt_lean", (10, 3), 11, False, "TensorRT's lean runtime")
# Of what TensorRT says of one error: letters that are told, and what nobody can use.
_LONGEST = 160
_IN_ITS_SOURCE = re.compile(r"^\[\S+::\d+\] |^\w+::\w+: |\[\S+:\d+: \w+\] |;? ?In \S+ at \S+:\d+")
# TensorRT runs on GPUs from Turing on; before version 10.5 it ran on Volta, too.
_OLDEST_GPU, _VOLTA_UNTIL, _VOLTA = (7, 5), (10, 5), (7, 0)


@dataclass(frozen=True)
class TensorRT:
    """A library that is loaded."""

    flavour: Flavour
    api: Any
    version: str

    @property
    def logger(self) -> Any:
        """The logger of this process, which keeps errors instead of printing them."""
        return _logger(self.api)

    @property
    def complaint(self) -> str:
        """The last error the library logged, in one line."""
        said = shortened(self.logger.errors[-1]) if self.logger.errors else ""
        return said or "it does not say why"

    def start(self, kind: str) -> Any:
        """Make the library's ``Builder`` or ``Runtime``.

        Without a driver that fits, some versions return nothing, some raise a TypeError, and the
        lean runtime returns an object that crashes when it is used; what it logged tells.

        Raises
        ------
        EngineError
            It did not start; the message says which driver it needs.
        """
        self.logger.errors = []
        try:
            with no_collection():
                made = getattr(self.api, kind)(self.logger)
        except (TypeError, RuntimeError) as error:
            made = None
            self.logger.errors = self.logger.errors or [first_line(error)]
        # Building ahead of time needs no driver, and may complain that there is none.
        needs_driver = kind == "Runtime" or not self.flavour.ahead_of_time
        if made is None or (needs_driver and self.logger.errors):
            why = driver_misfit(self.flavour) or "see whether `nvidia-smi` works, or use the CPU"
            raise EngineError(
                f"{self.flavour.name} {self.version} does not start ({self.complaint}); {why}"
            )
        return made

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version in numbers."""
        return _numbers(self.version)

    def runs_older(self, built_with: str) -> bool:
        """Whether this is a lean runtime no older than the TensorRT that built an engine.

        Parameters
        ----------
        built_with : str
            Name and version, as an engine's key has them.
        """
        name, _, version = built_with.partition(" ")
        return self.flavour is LEAN and name == "tensorrt" and _numbers(version) <= self.numbers

    def refuse_gpu(self, gpu: Gpu) -> None:
        """Refuse a GPU for which this library has no kernels.

        One of which the driver does not tell the compute capability is let pass.

        Raises
        ------
        EngineError
        """
        if gpu.capability == (0, 0):
            return
        if self.flavour.ahead_of_time:
            runs = "sm{}{}".format(*gpu.capability) in self.targets
            known = ", ".join(capability(name) for name in self.targets)
        else:
            oldest = _VOLTA if self.numbers[:2] < _VOLTA_UNTIL else _OLDEST_GPU
            runs = gpu.capability >= oldest
            known = f"{'.'.join(map(str, oldest))} and newer"
        if not runs:
            raise EngineError(
                f"{self.flavour.title} {self.version} does not run on {gpu.name}: it knows compute "
                f"capability {known}, and this one has {gpu.compute_capability}"
            )

    @property
    def targets(self) -> dict[str, Any]:
        """GPU families that engines can be built for ahead of time, by name as in ``sm89``."""
        if not self.flavour.ahead_of_time:
            return {}
        members = self.api.ComputeCapability.__members__
        return {name.lower(): value for name, value in members.items() if name.startswith("SM")}

    def target(self, name: str) -> Any:
        """Look up one GPU family.

        Raises
        ------
        UsageError
            The library builds for the GPU in the machine only, or does not know this family.
        """
        if not self.targets:
            raise self.flavour.without_targets
        if name.lower() not in self.targets:
            raise UsageError(
                f"{self.flavour.name} {self.version} has no target {name!r}; "
                f"choose from {', '.join(self.targets)}"
            )
        return self.targets[name.lower()]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def capability(target: str) -> str:
    """The compute capability of a family: 8.9 of ``sm89``, 12.0 of ``sm120``."""
    digits = target.removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1:]}"


def shortened(said: str) -> str:
    """What TensorRT said as a part of one line: without places in its source, and not all of it.

    Examples
    --------
    >>> shortened("[a.cpp::make::3] Error Code 2: OutOfMemory (Requested size was 9 bytes.)")
    'Error Code 2: OutOfMemory (Requested size was 9 bytes.)'
    """
    text = _IN_ITS_SOURCE.sub("", " ".join(said.split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip(' ([;,')} ..."


def open_library(name: str) -> TensorRT:
    """Import a flavour and check its version.

    Raises
    ------
    UsageError
        There is no such flavour.
    EngineError
        It is not installed, one of its libraries does not load, or its version is not one that
        is known to work.
    """
    if name not in FLAVOURS:
        raise UsageError(f"no TensorRT flavour {name!r}; choose from {', '.join(FLAVOURS)}")
    return _open(FLAVOURS[name])


def open_runtime(name: str) -> TensorRT:
    """Import what runs the engines of a flavour: the library itself, or its lean runtime.

    Raises
    ------
    UsageError, EngineError
        As :func:`open_library`, whose reason counts; the driver is too old for the library.
    """
    try:
        library = open_library(name)
    except EngineError:
        if name != "tensorrt":
            raise
        with contextlib.suppress(EngineError):
            library = _open(LEAN)
            _refuse_driver(library)
            return library
        raise
    _refuse_driver(library)
    return library


def driver_misfit(flavour: Flavour) -> str:
    """Why the driver does not run a library that pip installed, and what to do.

    Empty where it does, and where nobody says which CUDA the library is for, as with that of a
    Jetson's system, which fits the driver that came with it.
    """
    driver, found = nvidia_driver(), []
    for major in NEEDS_DRIVER:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(f"{flavour.name}-cu{major}-bindings")
            swap = functools.partial(_swap, f"{flavour.name}-cu{major}", flavour.name)
            found.append(driver.misfit(major, swap))
    return min(found, default="", key=len)


def _swap(package: str, name: str, extra: str) -> str:
    """The command that puts a library for another CUDA in the place of one; they share files."""
    parts = " ".join((name, package, f"{package}-bindings", f"{package}-libs"))
    return f"pip uninstall -y {parts} && {install(extra)} {name}-{extra}"


def _refuse_driver(library: TensorRT) -> None:
    misfit = driver_misfit(library.flavour)
    if misfit:
        raise EngineError(f"{library.flavour.name} {library.version} does not run here: {misfit}")


def _how_to_get(flavour: Flavour) -> str:
    """How this machine gets a library: it follows from the driver, and a Jetson has its own."""
    if on_jetson() and not flavour.ahead_of_time:
        return (
            "on a Jetson it comes with JetPack: run `sudo apt install nvidia-jetpack`, and make "
            "the environment with `python3 -m venv --system-site-packages`"
        )
    if nvidia_driver().extra == "cu12":
        return f"run `{install('cu12')} {flavour.name}-cu12`"
    return f"run `{install(flavour.name)}`"


def _open(flavour: Flavour) -> TensorRT:
    advice = _how_to_get(flavour)
    try:
        api = importlib.import_module(flavour.module)
    except ModuleNotFoundError as error:
        raise EngineError(f"{flavour.module} is not installed ({error}); {advice}") from None
    except (ImportError, OSError, RuntimeError) as error:
        # libnvinfer or a CUDA library is missing, or does not fit to the Python package.
        raise EngineError(
            f"{flavour.module} does not load ({first_line(error)}); {advice}"
        ) from None
    version = str(api.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < flavour.oldest or numbers[:1] > (flavour.newest,):
        oldest = ".".join(map(str, flavour.oldest))
        raise EngineError(
            f"{flavour.module} {version} is installed, and {oldest} to {flavour.newest}.x are "
            f"known to work; {advice}, or on a Jetson bring JetPack up to date"
        )
    return TensorRT(flavour, api, version)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from collecting garbage while the library may call back.

    It logs with a lock held. A collection within that call that finds one of the library's own
    objects, of an earlier image, lets it go, which waits for the same lock for ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.cache
def _logger(api: Any) -> Any:
    # One for the process and for good: the library keeps the first logger it is given for as long
    # as any of its objects lives, and ignores later ones.
    severity = api.ILogger.Severity

    class Logger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                self.errors = [*self.errors[-9:], " ".join(message.split())]

    return Logger()
