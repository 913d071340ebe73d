"""``cellrt simulate``: stacks with known cells, for trying things out and for training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from cellrt.wording import counted

IntTriple = Optional[tuple[int, int, int]]  # noqa: UP045 (evaluated on Python 3.10)
Triple = Optional[tuple[float, float, float]]  # noqa: UP045

_WORDS = {"nuclei": ("nucleus", "nuclei"), "worms": ("worm", "worms")}


def simulate(
    kind: Annotated[str, typer.Argument(help="nuclei, membranes, bacteria or worms.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the stacks.")],
    count: Annotated[int, typer.Option(min=1, help="How many stacks.")] = 1,
    style: Annotated[
        str,
        typer.Option(
            help="typical; random: as varied as in training; empty: no cells; nuclei also paper "
            "(1000x140x140, HarmonicNet), scattered, clumps, dense, embryo, shell, sheet; "
            "membranes also clumped, tissue, ball, cylinder, half, sheet, shell; bacteria: typical "
            "(fluorescence), phase, dic; worms, which overlap: typical (brightfield), fluorescence."
        ),
    ] = "typical",
    shape: Annotated[
        IntTriple,
        typer.Option("--shape", metavar="Z Y X", help="In voxels [64 128 128; 1 256 256]."),
    ] = None,
    diameter: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Mean cell diameter in pixels; of worms, that of a disc of their area [16; "
            "membranes 24; worms 32]."
        ),
    ] = None,
    voxel_size: Annotated[
        Triple,
        typer.Option("--voxel-size", metavar="Z Y X", help="In µm; y and x equal [0.5 0.5 0.5]."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="The first stack's; each further one takes the next number.")
    ] = 0,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="File names start with it [the kind]."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace stacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    """Simulate stacks with known cells.

    Writes NAME_000.tif (image), NAME_000.truth.tif (ground truth) and NAME_000.json (parameters).
    The ground truth of worms has channels, in each of which none overlap.
    """
    from cellrt.errors import UsageError
    from cellrt.files import check_outputs
    from cellrt.simulation.files import save_stack, stack_paths
    from cellrt.simulation.styles import simulate_style

    prefix = kind if name is None else name
    if not prefix or Path(prefix).name != prefix:
        raise UsageError(f"name is '{prefix}'; give a file name without folder, and -o for that")
    names = [f"{prefix}_{index:03d}" for index in range(count)]
    for each in names:
        # Before the long work; every stack is checked once more when it is written.
        check_outputs(stack_paths(output, each), overwrite=overwrite)
    for index, each in enumerate(names):
        stack = simulate_style(
            kind,
            style,
            index=index,
            seed=seed,
            shape=shape,
            diameter_voxels=diameter,
            voxel_size_um=voxel_size,
        )
        paths = save_stack(stack, output, each, overwrite=overwrite)
        z, y, x = stack.image.shape
        size = f"{y} x {x} pixels" if z == 1 else f"{z} x {y} x {x} voxels"
        if stack.cell_count == 0 and style != "empty":
            text = f"{paths['image']} has no cells: none has room in {size}, or none was drawn"
            print(f"warning: {text}", file=sys.stderr)
        if not quiet:
            words = _WORDS.get(stack.kind, ("cell", "cells"))
            print(
                f"[{index + 1}/{count}] {paths['image']}: {size}, "
                f"{counted(stack.cell_count, *words)}; ground truth in {paths['truth'].name}"
            )
