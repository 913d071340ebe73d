"""``cellrt train``: train a network from a recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a TOML file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for checkpoints and logs [runs/NAME]."),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh/--resume", help="Start over, or go on from the last checkpoint."),
    ] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Train this long in all, instead of what the recipe says."),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Train this many steps, instead of what the recipe says."),
    ] = None,
) -> None:
    """Train a network from a recipe; the same command goes on after an interruption."""
    from cellrt.errors import UsageError
    from cellrt.training.recipe import load_recipe

    if max_minutes is not None and not math.isfinite(max_minutes):
        raise UsageError(f"--max-minutes is {max_minutes:g}; expected a number of minutes")
    try:
        from cellrt.training import loop
    except ImportError as error:
        raise UsageError(
            f"training needs packages that are not installed ({error.name}); "
            "install them with: pip install 'cellrt[train]'"
        ) from error

    loaded = load_recipe(recipe)
    changes = {
        key: value
        for key, value in (("max_minutes", max_minutes), ("max_steps", max_steps))
        if value is not None
    }
    loaded = loaded.model_copy(update={"optim": loaded.optim.model_copy(update=changes)})
    checkpoint = loop.train(
        loaded,
        output or Path("runs") / loaded.name,
        fresh=fresh,
        report=print,
    )
    print(f"checkpoint: {checkpoint}; next: cellrt export {checkpoint} -o {loaded.name}.onnx")
