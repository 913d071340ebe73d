"""Build a TensorRT engine from an ONNX graph."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cellrt.endings import ending_signals
from cellrt.errors import CellrtError, EngineError, ResourceError, first_line
from cellrt.files import write_whole
from cellrt.geometry import Shape
from cellrt.runtime.model.card import TURNS
from cellrt.runtime.network.engines.tensorrt.library import TensorRT, no_collection, shortened

Advance = Callable[[str, float], None]

# What TensorRT says where a tile or a batch is too large for the memory, or for its own numbers.
_NO_ROOM = re.compile(
    r"out ?of ?memory|insufficient memory|bad_?alloc|memory allocation|tensor volume"
    r"|workspace|scratch",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Profile:
    """What an engine takes: tiles of one shape, in batches of up to a largest one, and memory.

    Parameters
    ----------
    tile : (int, int, int)
        Tile (z, y, x) in voxels.
    largest_batch : int
        Tiles at once; kernels are tuned for this many.
    workspace_bytes : int, optional
        Most device memory that a layer may use for its work.
    lean : bool
        For the lean runtime, of the version that builds or a later one.
    """

    tile: Shape
    largest_batch: int = 1
    workspace_bytes: int | None = None
    lean: bool = False

    def __str__(self) -> str:
        most = "1 tile" if self.largest_batch == 1 else f"1 to {self.largest_batch} tiles"
        words = f"{most} of {'x'.join(map(str, self.tile))}"
        if self.workspace_bytes is not None:
            words += f" with {self.workspace_bytes} bytes of workspace"
        return f"{words}, for the lean runtime" if self.lean else words


@no_collection()
def build_engine(
    library: TensorRT,
    graph: bytes,
    profile: Profile,
    *,
    channels: int = 1,
    targets: Sequence[str] = (),
    tf32: bool = True,
    timings: Path | None = None,
    advance: Advance = lambda phase, share: None,
    note: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Build an engine; every precision is the graph's own.

    Parameters
    ----------
    library : TensorRT
        From :func:`~cellrt.runtime.network.engines.tensorrt.library.open_library`.
    graph : bytes
        A serialised ONNX model with input (n, channels, z, y, x).
    profile : Profile
    channels : int
    targets : sequence of str
        GPU families to build for ahead of time, such as ``"sm89"``. Without any, TensorRT
        builds for the GPU in the machine, and TensorRT-RTX leaves the choice to the place of use.
    tf32 : bool
        Whether products of fp32 may be computed in TF32, where a GPU has that.
    timings : Path, optional
        File in which TensorRT keeps how long its kernels took, so that it measures each only
        once on a GPU. TensorRT-RTX measures nothing and has none.
    advance : callable
        Told the phase and the share of it, 0 to 1, that is done.
    note : callable
        Told in one line why timings cannot be used or kept; the engine is built all the same.

    Returns
    -------
    bytes
        The serialised engine. It is executable code: keep it where only its user can write.

    Raises
    ------
    EngineError
        The graph cannot be parsed (the message names the node), or the engine cannot be built.
    ResourceError
        Too little memory for the tile and the batch, or too small a workspace.
    UsageError
        A target that the library does not know.
    KeyboardInterrupt
        Ctrl-C or another signal that ends a run; the build stops at its next step.
    """
    trt = library.api
    families = [library.target(name) for name in targets]
    logger = library.logger
    builder = library.start("Builder")
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        problems = [_describe(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(
            f"{library.flavour.name} {library.version} cannot read this graph: "
            f"{'; '.join(problems[:2])}{' and more' * (len(problems) > 2)}; use another --engine"
        )
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if profile.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, profile.workspace_bytes)
    if profile.lean:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)  # it comes with the installation
    if library.flavour.ahead_of_time:
        timings = None
    if timings is not None:
        _take_timings(config, timings, note)
    if families:
        config.num_compute_capabilities = len(families)
        for index, family in enumerate(families):
            config.set_compute_capability(family, index)
    shapes = builder.create_optimization_profile()
    most = profile.largest_batch
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        # Where tiles lie is as many numbers for each, whatever its size.
        each = network.get_input(index).shape[1:] if name == TURNS else (channels, *profile.tile)
        shapes.set_shape(name, *((batch, *each) for batch in (1, most, most)))
    config.add_optimization_profile(shapes)

    monitor = _monitor(trt, advance)
    config.progress_monitor = monitor
    with _Interrupts() as interrupts:
        monitor.interrupted = interrupts.arrived
        engine = builder.build_serialized_network(network, config)
    if interrupts.arrived():
        raise KeyboardInterrupt
    if engine is None:
        raise _failure(library, profile)
    if timings is not None:
        _keep_timings(config, timings, note)
    return bytes(engine)


def _take_timings(config: Any, file: Path, note: Callable[[str], None]) -> None:
    """Let the builder start from former timings, or from none where it does not take them."""
    try:
        saved = file.read_bytes() if file.is_file() else b""
        if config.set_timing_cache(config.create_timing_cache(saved), False):
            return
        reason = "they are damaged, or of another GPU or version"
    except Exception as error:  # the bindings' own, and those of reading a file
        reason = first_line(error)
    note(f"former timings of kernels are left out ({reason}), and all are timed again")
    # Without a cache of its own the builder has one for this build, which is not kept.
    with contextlib.suppress(Exception):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(config: Any, file: Path, note: Callable[[str], None]) -> None:
    try:
        write_whole(file, bytes(config.get_timing_cache().serialize()))
    except Exception as error:  # without them the next build takes longer, and that is all
        note(f"the timings of kernels cannot be kept in {file} ({first_line(error)})")


def _describe(error: Any) -> str:
    """One parser error: the node, its operation, and what is wrong with it."""
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{shortened(error.desc())}"


def _failure(library: TensorRT, profile: Profile) -> CellrtError:
    """Why nothing was built, with the advice that fits: most often memory was too little."""
    why = f"{library.flavour.name} {library.version} cannot build an engine for {profile}"
    said = " ".join(library.logger.errors)
    workspace = profile.workspace_bytes
    if workspace is not None and re.search("workspace", said, re.IGNORECASE):
        return ResourceError(
            f"{why}: --workspace {workspace / 1e9:g} is too little for its layers; give more, or "
            "leave it out"
        )
    if _NO_ROOM.search(said):
        return ResourceError(
            f"{why}: that takes too much memory ({library.complaint}); give a smaller --tile or "
            "--batch to `cellrt build`, or close other programs"
        )
    return EngineError(f"{why}: {library.complaint}; use another --engine")


def _monitor(trt: Any, advance: Advance) -> Any:
    """A monitor that reports phases and can stop the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.interrupted: Callable[[], bool] = lambda: False

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            advance(phase, min(1.0, (step + 1) / max(1, self.steps.get(phase, 1))))
            return not self.interrupted()

        def phase_finish(self, phase: str) -> None:
            advance(phase, 1.0)

    return Monitor()


class _Interrupts:
    """Take note of signals that end a run instead of raising from a callback of the builder.

    An exception would have to cross the library's own code. Elsewhere than in the main thread
    Python allows no handler, and signals reach the main thread anyway.
    """

    def __init__(self) -> None:
        self._count = 0
        self._former: dict[int, Any] = {}

    def arrived(self) -> bool:
        return self._count > 0

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in ending_signals():
                if callable(signal.getsignal(number)):  # else it raises nothing
                    self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
