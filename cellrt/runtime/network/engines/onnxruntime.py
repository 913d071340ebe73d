"""ONNX Runtime on the CPU: the portable fallback."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError, first_line
from cellrt.geometry import Shape
from cellrt.limits import usable_cores
from cellrt.runtime.machine.driver import install
from cellrt.runtime.model.card import TURNS
from cellrt.runtime.model.card_parts import Guides
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.guides import turns_at
from cellrt.runtime.model.unfolded import unfolded_bytes
from cellrt.runtime.network.engines.base import COPIES_BYTES_PER_VOXEL, LayerTime

_COMMAND = install("onnxruntime")
_KERNEL = "_kernel_time"  # how its profile names the work of a layer


def available(*, asked: bool = False) -> str:
    """Return ONNX Runtime's version.

    Raises
    ------
    EngineError
        ONNX Runtime is not installed or does not load.
    """
    return f"ONNX Runtime {import_library(_COMMAND).__version__} on CPU"


def check(model: ModelFile, tile: Shape | None, precision: str) -> None:
    """Refuse bf16, asked for or in the file, which the CPU provider does not compute.

    Raises
    ------
    EngineError
    """
    if precision == "bf16":
        raise EngineError(
            "ONNX Runtime computes in fp32 on the CPU; use --engine openvino for bf16"
        )
    if model.card.precision == "bf16":
        raise EngineError(
            f"ONNX Runtime has no bf16 convolutions on the CPU and cannot run {model.path.name}; "
            "use --engine openvino, or the fp32 model"
        )


def tile_bytes(model: ModelFile, precision: str) -> float:
    """Bytes per voxel of a tile; transposed convolutions are unfolded."""
    return model.card.activation_bytes + COPIES_BYTES_PER_VOXEL + unfolded_bytes(model)


def load(
    model: ModelFile,
    tile: Shape,
    *,
    precision: str = "auto",
    note: Callable[[str], None] = lambda text: None,
) -> Any:
    """Create a CPU session; its shape is free, so ``tile`` only documents the use.

    Raises
    ------
    EngineError
        As `check`, or the session cannot be created.
    """
    return OnnxRuntimeSession(_create(model, precision), model.card.told)


def layers(
    model: ModelFile, image: NDArray[np.float32], precision: str, runs: int
) -> list[LayerTime]:
    """How long each layer takes, as ONNX Runtime writes it down.

    Raises
    ------
    EngineError
        As `load`.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = _create(model, precision, str(Path(folder) / "layers"))
        loaded = OnnxRuntimeSession(session, model.card.told)
        for _ in range(runs + 1):
            loaded.infer(image)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            about = event["args"]
            name = event["name"].removesuffix(_KERNEL)
            layer = (name, about.get("op_name", ""), about.get("provider", ""))
            found.setdefault(layer, []).append(event["dur"] / 1e3)
    return [
        # The first run allocates.
        LayerTime(*layer, sum(times[len(times) // (runs + 1) :]) / runs)
        for layer, times in found.items()
    ]


def _create(model: ModelFile, precision: str, profile: str = "") -> Any:
    """Create a session of the library, which may write a profile to files of some name."""
    check(model, None, precision)
    library = import_library(_COMMAND)
    options = library.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    # The arena keeps every tile's peak for good; without it memory goes back between tiles.
    options.enable_cpu_mem_arena = False
    cores = usable_cores()
    if cores.granted:  # which ONNX Runtime does not see
        options.intra_op_num_threads = cores.number
    try:
        return library.InferenceSession(model.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises its own untyped errors
        raise EngineError(
            f"ONNX Runtime cannot load {model.path.name} ({first_line(error)})"
        ) from error


class OnnxRuntimeSession:
    """An inference session on the CPU provider."""

    device = "CPU"
    precision = "fp32"

    def __init__(self, session: Any, guides: Guides | None = None) -> None:
        self._session = session
        self._input, *further = (each.name for each in session.get_inputs())
        self.takes_place = bool(further)
        self._guides = guides

    def infer(self, image: NDArray[np.float32], start: Shape = (0, 0, 0)) -> NDArray[np.float32]:
        """Run the network on a (1, 1, z, y, x) tile."""
        told = {self._input: image}
        if self.takes_place:
            assert self._guides is not None
            told[TURNS] = turns_at(self._guides, [start])
        result: NDArray[np.float32] = self._session.run(None, told)[0]
        return result


def import_library(command: str) -> Any:
    """Import ONNX Runtime, or say which command brings it.

    Raises
    ------
    EngineError
        It is not installed or does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime does not load ({error}); run `{command}`") from None
    return onnxruntime
