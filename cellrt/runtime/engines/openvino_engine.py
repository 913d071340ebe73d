"""OpenVINO: the engine for CPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.runtime.model_file import ModelFile
from cellrt.runtime.tiling import Shape


def available() -> str:
    """Return OpenVINO's version and the CPU it will use.

    Raises
    ------
    EngineError
        OpenVINO is not installed or does not load.
    """
    core = shared_core()
    import openvino

    version = str(openvino.__version__).split("-")[0]
    return f"OpenVINO {version} on {core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}"


def load(
    model: ModelFile,
    tile: Shape,
    *,
    precision: str = "auto",
    note: Callable[[str], None] = lambda text: None,
) -> Any:
    """Compile a model for tiles of one shape.

    ``auto`` computes in bf16 where the CPU has matrix instructions for it, else in fp32.

    Raises
    ------
    EngineError
        The CPU has no bf16 although it was asked for, or OpenVINO cannot compile the graph.
    """
    core = shared_core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise EngineError("this CPU has no bf16 instructions; use --precision fp32 or auto")
    chosen = "bf16" if has_bf16 and precision in ("auto", "bf16") else "fp32"
    try:
        graph = core.read_model(str(model.path))
        graph.reshape([1, model.card.channels, *tile])
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "bf16" if chosen == "bf16" else "f32",
            },
        )
    except RuntimeError as error:
        first_line = str(error).strip().splitlines()[-1]
        raise EngineError(
            f"OpenVINO cannot load {model.path.name}: {first_line}; try --engine onnxruntime"
        ) from error
    # Quantised layers are computed as the graph says; the hint is about all others.
    return OpenVinoSession(compiled, "int8" if model.card.precision == "int8" else chosen)


class OpenVinoSession:
    """A compiled model and one inference request."""

    device = "CPU"

    def __init__(self, compiled: Any, precision: str) -> None:
        self.precision = precision
        self._request = compiled.create_infer_request()

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on a (1, 1, z, y, x) tile; the result is the caller's own."""
        self._request.infer([np.ascontiguousarray(image)], share_inputs=True)
        result: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return result


def shared_core() -> Any:
    """OpenVINO's core object, one for the process; having it proves that the library loads.

    Raises
    ------
    EngineError
        OpenVINO is not installed or does not load.
    """
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise EngineError(f"openvino does not load ({error}); run `pip install openvino`") from None
    return _core()


@functools.cache
def _core() -> Any:
    # One per process and for good. Loading the CPU plugin replaces the thread's alternate signal
    # stack, and unloading puts the former one back; of two cores dropped in the order they were
    # made, the second puts back the first one's stack, which is unmapped by then, and the next
    # Ctrl-C ends the process with a segmentation fault.
    import openvino

    return openvino.Core()
