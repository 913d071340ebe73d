"""Where a network's weights come from before training: chance, a checkpoint or an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence

from cellrt.models.cellpose3d import Cellpose3D
from cellrt.training.recipe import Recipe
from cellrt.training.stacks import Stack


def initial_network(recipe: Recipe, stacks: Sequence[Stack]) -> Cellpose3D:
    """Return a network with the weights that ``init`` names."""
    raise NotImplementedError
