"""How fast an engine computes a network here."""

from __future__ import annotations

import time

from cellrt.geometry import Shape
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines.base import Session


def probe_tile(model: ModelFile) -> Shape:
    """A tile (z, y, x) that the network computes in well below a second."""
    edge = max(model.card.multiple, 32 // model.card.multiple * model.card.multiple)
    return (edge, 2 * edge, 2 * edge)


def session_speed(session: Session, tile: Shape) -> float:
    """Time the network on one tile of the session's shape; return voxels per second."""
    image = golden_input(tile)
    session.infer(image)  # the first time allocates
    begin = time.perf_counter()
    session.infer(image)
    return image.size / (time.perf_counter() - begin)
