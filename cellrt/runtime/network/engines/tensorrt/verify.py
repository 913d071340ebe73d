"""Whether an engine computes what the CPU does, before its results are believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.geometry import Shape
from cellrt.runtime.machine.gpu import (
    DeviceMemoryError,
)
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines.gpu_session import (
    DeviceSession,
)

# Largest difference of a channel's mean over one tile from what the CPU computes in fp32. Measured
# on CPUs, the graph with every layer rounded differs by less than 1e-3 in fp16 and bf16, and int8
# by up to 6e-3; whatever is wrong with an engine shows as far more.
TOLERANCE = 0.02

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def verify(sessions: Sequence[DeviceSession], reference: Infer, tile: Shape, name: str) -> None:
    """Compare an engine on each GPU with the CPU, on as many tiles as it will compute at once.

    The tiles differ, so that one which is computed in another's place shows.

    Raises
    ------
    EngineError
        They differ.
    ResourceError
        Too little device memory for one tile.
    """
    image = golden_input(tile)
    turned = (image, image[..., ::-1], image[..., ::-1, :], 1 - image)
    most = max(session.largest_batch for session in sessions)
    images = np.concatenate([turned[index % len(turned)] for index in range(most)])
    expected = [reference(np.ascontiguousarray(one[None])) for one in images[: len(turned)]]
    for session in sessions:
        found = _infer_most(session, images[: session.largest_batch])
        for index, fields in enumerate(found):
            wanted = expected[index % len(turned)][0]
            difference = np.abs(fields - wanted).mean(axis=(1, 2, 3)).max()
            if not difference <= TOLERANCE:
                raise EngineError(
                    f"{name} computes something else than the CPU (mean difference "
                    f"{difference:.2g}, at most {TOLERANCE} is expected); use --engine openvino, "
                    "and report the model"
                )


def _infer_most(session: DeviceSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fields of as many tiles as there is device memory for."""
    while True:
        try:
            return session.infer(images)
        except DeviceMemoryError:
            if len(images) == 1:
                raise
            images = images[: len(images) // 2]
