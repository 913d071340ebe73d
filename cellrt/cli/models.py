"""``cellrt models``: what is bundled, what it is for and how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from cellrt.runtime.model.file import ModelFile


def models(
    name: Annotated[
        Optional[str],  # noqa: UP045 (evaluated on Python 3.10)
        typer.Argument(help="Show one model, bundled or a file, in full."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the model cards as JSON.")] = False,
) -> None:
    """List the bundled models: what each is for, its scores, and on which data."""
    import dataclasses
    import json as json_text

    from cellrt.runtime.model.file import bundled_names, open_model
    from cellrt.wording import file_size

    files = [open_model(name)] if name else [open_model(n) for n in bundled_names()]
    if json:
        cards = [dataclasses.asdict(file.card) | {"files": _files(file)} for file in files]
        print(json_text.dumps(cards[0] if name else cards, indent=1, sort_keys=True))
        return
    for file in files:
        card = file.card
        sizes = ", ".join(
            f"{kept.card.precision} {file_size(kept.path)}" for kept in (file, *file.variants())
        )
        print(f"{card.name}  ({sizes})")
        print(f"  {card.summary}")
        print(
            f"  cells of about {card.diameter_voxels:g} voxels in its grid "
            f"({card.diameter_um:.3g} µm if the voxel size is all that is known)"
        )
        for score in card.scores:
            seen = "  [trained on it]" if score.seen else ""
            print(f"  {score.metric} {score.value:.2f}  {score.data}{seen}")
        print("  trained on " + "; ".join(f"{d.name} ({d.licence})" for d in card.training_data))
        if name:
            print(f"  method {card.method}, decoder {card.decoder} {card.decoder_parameters}")
            for data in card.training_data:
                print(f"  {data.name}: {data.source}")
            print(f"  recipe {card.recipe}, sha256 {file.sha256}")
        print()


def _files(model: ModelFile) -> dict[str, str]:
    """A model's file and those beside it, by precision."""
    return {file.card.precision: file.path.name for file in (model, *model.variants())}
