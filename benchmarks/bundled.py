"""Which of the bundled models a benchmark takes, by what they see."""

from __future__ import annotations

from cellrt.runtime.model.file import bundled_models, open_model


def models_of_stacks() -> list[str]:
    """Names of those that see stacks, not single images."""
    return [name for name in bundled_models() if not open_model(name).card.planar]


def models_of_images() -> list[str]:
    """Names of those that see single images."""
    return [name for name in bundled_models() if open_model(name).card.planar]
