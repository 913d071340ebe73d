"""``cellrt build``: TensorRT engines, built where they run or ahead of time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cellrt.files import output_file
from cellrt.wording import counted

if TYPE_CHECKING:
    from cellrt.runtime.model.file import ModelFile


def build(
    model: Annotated[
        str | None, typer.Argument(help="Bundled model or an exported .onnx file.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, fp32, tf32, fp16, bf16 or int8, as for `cellrt segment`.")
    ] = "auto",
    engine: Annotated[
        str | None,
        typer.Option(help="tensorrt or tensorrt-rtx; the first that can be had by default."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU family to build for ahead of time, such as sm89, with tensorrt-rtx; "
            "repeatable."
        ),
    ] = None,
    tile: Annotated[
        Optional[tuple[int, int, int]],  # noqa: UP045 (evaluated on Python 3.10)
        typer.Option("--tile", metavar="Z Y X", help="Tile that it takes [the model's]."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most tiles at once.")] = 4,
    workspace: Annotated[
        float | None, typer.Option(min=0, help="Most device memory of one layer's work, in GB.")
    ] = None,
    lean: Annotated[
        bool, typer.Option("--lean", help="For a machine that has only TensorRT's lean runtime.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=output_file,
            help="Also write the engine with its model into one .bundle file, for `cellrt segment "
            "--engine-file FILE` on another machine like the one it is for.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    list_engines: Annotated[bool, typer.Option("--list", help="List the engines there are.")] = (
        False
    ),
    clear: Annotated[bool, typer.Option("--clear", help="Remove all engines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Build the TensorRT engine of a model into the cache, or list or clear the cache."""
    from cellrt.cli.reporting import Terminal
    from cellrt.errors import ResourceError, UsageError
    from cellrt.runtime.network.engines.tensorrt.cache import default_cache

    if output is not None and model is None:
        raise UsageError("-o needs a model to build")
    if workspace is not None and not math.isfinite(workspace * 1e9):
        raise UsageError(f"--workspace is {workspace:g}; expected a number of GB")
    if list_engines + clear + (model is not None) != 1:
        raise UsageError("give a model to build, or one of --list and --clear")
    cache = default_cache()
    if list_engines:
        entries = cache.entries()
        for entry in entries:
            key = entry.key
            print(
                f"{key.model} {key.precision}, {key.library}, for {key.gpu} "
                f"({key.compute_capability}), {key.profile}: "
                f"{entry.size_bytes / 1e6:.1f} MB, {entry.build_seconds:.1f} s, {entry.built}, "
                f"{entry.path.name}"
            )
        print(f"{counted(len(entries), 'engine')} in {cache.folder}")
        return
    if clear:
        print(f"{counted(cache.clear(), 'engine')} removed from {cache.folder}")
        return

    from cellrt.files import foresee_outputs, refuse_other_ending
    from cellrt.runtime.model.file import open_model
    from cellrt.runtime.network.engines.base import check_precision
    from cellrt.runtime.network.engines.ladder import engine_named
    from cellrt.runtime.network.engines.precision import file_for
    from cellrt.runtime.network.engines.tensorrt.build import Profile
    from cellrt.runtime.network.engines.tensorrt.bundle import ENDING, write_bundle
    from cellrt.runtime.network.engines.tensorrt.provide import (
        choose_builder,
        obtain_engine,
        refuse_build,
    )

    precision = precision.lower()
    check_precision(precision)
    assert model is not None
    opened = open_model(model)
    workspace_bytes = None if workspace is None else round(workspace * 1e9)
    profile = Profile(_checked_tile(opened, tile), batch, workspace_bytes, lean)
    # Whatever can be refused is refused before anything is told or built.
    if output is not None:
        refuse_other_ending(output, (ENDING,), "an engine with its model")
        foresee_outputs({"bundle": output}, overwrite=overwrite, inputs=[opened.path])
    builder = choose_builder(engine, target or ())
    spec = engine_named(builder.library.flavour.name)
    notes: list[str] = []
    file = file_for(opened, spec, precision, notes.append)
    refuse_build(file, builder, profile, precision)
    terminal = Terminal(quiet=quiet)
    try:
        for text in notes:
            terminal.note(text)
        library = builder.library
        terminal.note(f"{library.flavour.name} {library.version}, for {builder.words}")
        data, key = obtain_engine(
            file,
            builder,
            cache,
            profile,
            precision=precision,
            note=terminal.note,
            advance=terminal.phase,
        )
        try:
            cache.choose(key)
        except ResourceError as error:  # it is found all the same, unless there are others
            terminal.note(error.message)
    finally:
        terminal.close()
    if not quiet:
        print(f"{cache.folder / key.stem}.engine: {len(data) / 1e6:.1f} MB")
    if output is not None:
        digest = write_bundle(output, file, data, key, overwrite=overwrite)
        if not quiet:
            print(f"{output}: sha256 {digest}, for {builder.words}")


def _checked_tile(model: ModelFile, tile: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """The tile to build for, refused where the network cannot take it."""
    from cellrt.errors import UsageError

    if model.card.views:
        raise UsageError(
            f"an engine takes tiles of one shape, and the planes of {model.card.name} have three; "
            "give another model, or use `cellrt segment` with OpenVINO or ONNX Runtime"
        )
    if tile is None:
        return model.card.tile
    multiples = model.card.multiples
    if any(edge < 1 or edge % step for edge, step in zip(tile, multiples, strict=True)):
        raise UsageError(
            f"--tile is {' '.join(map(str, tile))}; expected multiples of "
            f"{' '.join(map(str, multiples))} for model {model.card.name!r}"
        )
    return tile
