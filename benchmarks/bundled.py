"""Which of the bundled models a benchmark of stacks takes."""

from __future__ import annotations

from cellrt.runtime.model.file import bundled_models, open_model


def models_of_stacks() -> list[str]:
    """Names of those that see stacks, not single images."""
    return [name for name in bundled_models() if not open_model(name).card.planar]
