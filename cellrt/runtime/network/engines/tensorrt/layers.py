"""What TensorRT tells while it runs: how long each layer took."""

from __future__ import annotations

from typing import Any


def layer_profiler(trt: Any) -> Any:
    """Make an object that TensorRT tells; its ``sums`` are milliseconds by the layers' names.

    Parameters
    ----------
    trt : module
        ``tensorrt`` or ``tensorrt_rtx``, whose class it has to be of.
    """

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.sums: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.sums[layer_name] = self.sums.get(layer_name, 0.0) + ms

    return Profiler()
