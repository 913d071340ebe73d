"""Read the averaged network and the recipe back from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cellrt.errors import InputError, first_line
from cellrt.models.layers.network import Network
from cellrt.training.recipe import Recipe


def load_checkpoint(path: str | Path) -> tuple[Network, Recipe]:
    """Return the averaged network, in evaluation mode, and the recipe it was trained by.

    Raises
    ------
    InputError
        When the file is missing or is no checkpoint of ``cellrt train``.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; `cellrt train` writes RUN/last.ckpt")
    try:
        # Only tensors and plain values: a checkpoint from elsewhere must not run code.
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        recipe = Recipe(**stored["cellrt_recipe"])
        net = recipe.method().network()
        net.load_state_dict(
            {
                name.removeprefix("averaged."): value
                for name, value in stored["state_dict"].items()
                if name.startswith("averaged.")
            }
        )
    except Exception as error:
        raise InputError(
            f"{path}: not a checkpoint of `cellrt train` ({first_line(error)})"
        ) from error
    return net.eval(), recipe
