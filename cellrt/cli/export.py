"""``cellrt export``: from a checkpoint to an ONNX model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint written by `cellrt train`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Describe and decode as this recipe says, not as the checkpoint does."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON list of measured scores for the model card.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Export a checkpoint to a self-describing ONNX file, after the parity gate."""
    from cellrt.errors import UsageError

    try:
        from cellrt.export.export import export as run
        from cellrt.export.export import read_scores
    except ImportError as error:
        raise UsageError(
            f"export needs packages that are not installed ({error.name}); "
            "install them with: pip install 'cellrt[train]'"
        ) from error

    exported = run(
        checkpoint,
        output,
        recipe_path=recipe,
        scores=read_scores(scores) if scores is not None else (),
        overwrite=overwrite,
    )
    for row in exported.parity:
        typer.echo(
            f"{row.engine}: largest difference {row.max_error:.2g}, mean {row.mean_error:.2g}, "
            f"beyond {row.tolerance.voxel:g}: {100 * row.share_beyond:.3g} %, "
            f"AP at IoU 0.9 {row.instance_ap:.3f}"
        )
    typer.echo(f"{exported.path}: {exported.size_bytes / 1e6:.1f} MB")
