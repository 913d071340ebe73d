"""How fast an engine computes a network here."""

from __future__ import annotations

import time

from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines.ladder import EngineChoice


def network_speed(choice: EngineChoice, model: ModelFile, precision: str) -> tuple[float, str]:
    """Time the network on one tile, small enough to take well below a second.

    Returns
    -------
    (float, str)
        Voxels per second, and the precision that was computed in.
    """
    edge = max(model.card.multiple, 32 // model.card.multiple * model.card.multiple)
    tile = choice.fixed_tile(model) or (edge, 2 * edge, 2 * edge)
    image = golden_input(tile)
    session = choice.load(model, tile, precision)
    session.infer(image)  # the first time allocates
    begin = time.perf_counter()
    session.infer(image)
    return image.size / (time.perf_counter() - begin), session.precision
