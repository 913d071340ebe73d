"""OpenVINO: the engine for CPUs, and for Intel's GPUs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.geometry import Shape
from cellrt.limits import usable_cores
from cellrt.runtime.machine.hardware import cpu_has_bf16
from cellrt.runtime.model.card import INPUT, TURNS
from cellrt.runtime.model.card_parts import Guides
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_difference
from cellrt.runtime.model.guides import turns_at
from cellrt.runtime.network.engines.base import COPIES_BYTES_PER_VOXEL, LayerTime

# Intel's GPUs compute in fp16 unless told otherwise; means over a tile agree far better than this.
_FP16_TOLERANCE = 5e-3
_CONVERTER = "openvino.tools.ovc"


@dataclass(frozen=True)
class OpenVinoEngine:
    """OpenVINO on one kind of device.

    Parameters
    ----------
    device : {"CPU", "GPU"}
    """

    device: str

    @property
    def several_at_once(self) -> bool:
        """Whether several threads may compute at a time: a GPU is kept busy by one."""
        return self.device == "CPU"

    def available(self, *, asked: bool = False) -> str:
        """Return OpenVINO's version and the processor it will use.

        Raises
        ------
        EngineError
            OpenVINO is not installed or does not load; there is no Intel GPU, or only one that
            is part of the CPU and nobody asked for it.
        """
        core = shared_core()
        if self.device == "GPU":
            if not any(name.startswith("GPU") for name in core.available_devices):
                raise EngineError("OpenVINO finds no Intel GPU with a driver for computing")
            kind = str(core.get_property("GPU", "DEVICE_TYPE")).rpartition(".")[2].lower()
            if kind != "discrete" and not asked:
                raise EngineError(
                    "the Intel GPU is part of the CPU; `cellrt doctor` says whether it is faster"
                )
        version = str(_library().__version__).split("-")[0]
        name = core.get_property(self.device, "FULL_DEVICE_NAME").strip()
        return f"OpenVINO {version} on {name}"

    def check(self, model: ModelFile, tile: Shape | None, precision: str) -> None:
        """Refuse a precision that the device or the model does not have.

        Raises
        ------
        EngineError
        """
        self._precision(model, precision)

    def tile_bytes(self, model: ModelFile, precision: str) -> float:
        """Bytes per voxel of a tile: half as many activations where it computes in bf16."""
        half = self.device == "CPU" and self._precision(model, precision) == "bf16"
        return model.card.activation_bytes / (2 if half else 1) + COPIES_BYTES_PER_VOXEL

    def load(
        self,
        model: ModelFile,
        tile: Shape,
        *,
        precision: str = "auto",
        note: Callable[[str], None] = lambda text: None,
        at_once: int = 1,
    ) -> OpenVinoSession:
        """Compile a model for tiles of one shape, of which all cores compute one.

        With ``at_once`` each of so many threads may ask for one, and the cores are dealt out to
        them: a tile takes longer and many take less, as cores do not wait for each other.

        ``auto`` computes in bf16 where the CPU has instructions for it and the model's card does
        not forbid it, else in fp32; on a GPU in fp16, after a comparison with the reference output
        in the model's card.

        Raises
        ------
        EngineError
            The device has no bf16 although it was asked for, OpenVINO cannot compile the graph, or
            a GPU computes something else than the card says.
        """
        chosen = self._precision(model, precision)
        session = self._compile(model, tile, chosen, at_once=at_once)
        golden = model.card.golden
        if self.device == "GPU" and golden is not None:
            checked = (
                session if golden.shape == tile else self._compile(model, golden.shape, chosen)
            )
            difference = golden_difference(model.card, checked.infer)
            if not difference <= max(golden.tolerance, _FP16_TOLERANCE):
                raise EngineError(
                    f"the Intel GPU computes something else than the card of {model.path.name} "
                    f"says (means differ by {difference:.2g}); use --engine openvino"
                )
        return session

    def layers(
        self, model: ModelFile, image: NDArray[np.float32], precision: str, runs: int
    ) -> list[LayerTime]:
        """How long each layer takes, which the network that is compiled for it writes down.

        Raises
        ------
        EngineError
            As `load`.
        """
        _, _, depth, height, width = image.shape
        chosen = self._precision(model, precision)
        session = self._compile(model, (depth, height, width), chosen, profiled=True)
        session.infer(image)  # the first time allocates
        found = [session.layers(image) for _ in range(runs)]
        return [
            replace(layer, milliseconds=sum(run[index].milliseconds for run in found) / runs)
            for index, layer in enumerate(found[0])
        ]

    def _precision(self, model: ModelFile, asked: str) -> str:
        if model.card.told is not None and asked not in ("auto", "fp32"):
            raise EngineError(
                f"{model.path.name} is told where tiles lie, which {asked} cannot tell from one "
                "another; use --precision fp32 or auto"
            )
        if asked == "auto" and (model.card.unquantised == "fp32" or model.card.told is not None):
            asked = "fp32"
        if self.device == "GPU":
            if asked == "bf16":
                raise EngineError("Intel GPUs compute in fp16 or fp32; use --precision auto")
            return "fp32" if asked == "fp32" else "fp16"
        if asked == "bf16" and not has_bf16():
            raise EngineError("this CPU has no bf16 instructions; use --precision fp32 or auto")
        return "bf16" if has_bf16() and asked in ("auto", "bf16") else "fp32"

    def _compile(
        self,
        model: ModelFile,
        tile: Shape,
        precision: str,
        *,
        profiled: bool = False,
        at_once: int = 1,
    ) -> OpenVinoSession:
        core = shared_core()
        hint = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]
        try:
            graph = core.read_model(model.content)
            shapes: dict[str, list[int]] = {INPUT: [1, model.card.channels, *tile]}
            if model.card.told is not None:
                shapes[TURNS] = [1, len(model.card.told.phases)]
            graph.reshape(shapes if len(graph.inputs) > 1 else shapes[INPUT])
            settings = {"INFERENCE_PRECISION_HINT": hint}
            if at_once == 1:
                settings["PERFORMANCE_HINT"] = "LATENCY"
            else:
                settings["NUM_STREAMS"] = str(at_once)
            if profiled:
                settings["PERF_COUNT"] = "YES"
            cores = usable_cores()
            # Without the number, each stream has but one core; what is granted OpenVINO cannot see.
            if self.device == "CPU" and (cores.granted or at_once > 1):
                settings["INFERENCE_NUM_THREADS"] = str(cores.number)
            compiled = core.compile_model(graph, self.device, settings)
        except RuntimeError as error:
            last_line = str(error).strip().splitlines()[-1]
            raise EngineError(
                f"OpenVINO cannot load {model.path.name}: {last_line}; try --engine onnxruntime"
            ) from error
        # Quantised layers are computed as the graph says; the hint is about all others.
        words = "int8" if model.card.precision == "int8" else precision
        return OpenVinoSession(compiled, self.device, words, model.card.told, at_once)


CPU, GPU = OpenVinoEngine("CPU"), OpenVinoEngine("GPU")


class OpenVinoSession:
    """A compiled model and an inference request for each thread that computes at a time."""

    def __init__(
        self,
        compiled: Any,
        device: str,
        precision: str,
        guides: Guides | None = None,
        at_once: int = 1,
    ) -> None:
        self.device = device
        self.precision = precision
        self.takes_place = len(compiled.inputs) > 1
        self._guides = guides
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(at_once):
            self._requests.put(compiled.create_infer_request())

    def infer(self, image: NDArray[np.float32], start: Shape = (0, 0, 0)) -> NDArray[np.float32]:
        """Run the network on a (1, 1, z, y, x) tile; the result is the caller's own."""
        told = {INPUT: np.ascontiguousarray(image)}
        if self.takes_place:
            assert self._guides is not None
            told[TURNS] = turns_at(self._guides, [start])
        with self._request() as request:
            request.infer(told, share_inputs=True)
            result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return result

    def layers(self, image: NDArray[np.float32]) -> list[LayerTime]:
        """Run the network once; of one compiled for that, say how long each layer took."""
        self.infer(image)
        with self._request() as request:
            found = request.get_profiling_info()
        return [
            LayerTime(
                layer.node_name,
                layer.node_type,
                layer.exec_type,
                layer.real_time.total_seconds() * 1e3,
            )
            for layer in found
            if str(layer.status).endswith("EXECUTED")
        ]

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """A request that no other thread has meanwhile."""
        request = self._requests.get()
        try:
            yield request
        finally:
            self._requests.put(request)


def has_bf16() -> bool:
    """Whether OpenVINO's CPU device computes in bf16 with instructions for it."""
    return cpu_has_bf16() and "BF16" in shared_core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )


def shared_core() -> Any:
    """OpenVINO's core object, one for the process; having it proves that the library loads.

    Raises
    ------
    EngineError
        OpenVINO is not installed or does not load.
    """
    try:
        _library()
    except ImportError as error:
        raise EngineError(f"openvino does not load ({error}); run `pip install openvino`") from None
    return _core()


@functools.cache
def _core() -> Any:
    # One per process and for good. Loading the CPU plugin replaces the thread's alternate signal
    # stack, and unloading puts the former one back; of two cores dropped in the order they were
    # made, the second puts back the first one's stack, which is unmapped by then, and the next
    # Ctrl-C ends the process with a segmentation fault.
    return _library().Core()


def _library() -> Any:
    """Import OpenVINO without its model converter.

    That part is optional, takes as long to import as all the rest, and sets up telemetry.
    """
    hide = "openvino" not in sys.modules and _CONVERTER not in sys.modules
    if hide:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hide:
            del sys.modules[_CONVERTER]
    return openvino
