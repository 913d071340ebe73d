"""``cellrt benchmark``: engines and precisions of a model on this machine, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from cellrt.evaluation.engine_runs import EngineRun

STAGES = (
    "read",
    "cell size",
    "prepare image",
    "load",
    "network",
    "cells",
    "measure",
    "write",
    "preview",
)


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Bundled models or .onnx files, such as variants."),
    ],
    stack: Annotated[
        Optional[Path],  # noqa: UP045 (evaluated on Python 3.10)
        typer.Option(help="Stack to segment [simulated, 64 x 192 x 192 voxels]."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the median counts.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure every engine that works here, as `cellrt segment` runs it, and compare the cells."""
    import dataclasses
    import json as json_text
    import sys
    import tempfile

    from cellrt.evaluation.engine_runs import compare_engines, working_engines
    from cellrt.runtime.model.file import open_model

    files = [open_model(model) for model in models]
    with tempfile.TemporaryDirectory() as folder:
        arguments: list[str] = []
        if stack is None:
            stack, arguments = _simulate(files[0].card.target, Path(folder))
        if not json:
            print(
                f"{'model':16} {'engine':16} {'computes':8} {'network':>8} {'all':>7}  Mvoxels/s "
                f"{'memory':>7} MB {'GPU':>6} MB {'build':>6} s  AP75 to the first"
            )
        runs = compare_engines(
            stack,
            files,
            working_engines(),
            arguments=arguments,
            repeats=repeats,
            report=lambda run: None if json else print(_row(run)),
            tell=lambda text: print(f"not measured: {text}", file=sys.stderr),
        )
    if json:
        print(json_text.dumps([dataclasses.asdict(run) for run in runs], indent=1))
        return
    print("seconds per stage:")
    for run in runs:
        parts = ", ".join(f"{s} {run.seconds[s]:.2f}" for s in STAGES if run.seconds.get(s))
        print(f"  {run.model} {run.engine} {run.precision}: {parts}")


def _row(run: EngineRun) -> str:
    device, build = run.peak_device_memory_bytes, run.build_seconds
    return (
        f"{run.model:16} {run.engine:16} {run.precision:8} "
        f"{run.network_voxels_per_second / 1e6:8.2f} {run.voxels_per_second / 1e6:7.2f}  "
        f"{'':9} {run.peak_memory_bytes / 1e6:7.0f}    "
        f"{'' if device is None else f'{device / 1e6:.0f}':>6}    "
        f"{'' if build is None else f'{build:.1f}':>6}    {run.agreement:.3f}"
    )


def _simulate(kind: str, folder: Path) -> tuple[Path, list[str]]:
    """A stack as a user might have it, and its voxel size in words."""
    from cellrt.simulation.files import save_stack
    from cellrt.simulation.styles import simulate_style

    simulated = simulate_style(kind, shape=(64, 192, 192), seed=7)
    paths = save_stack(simulated, folder, "benchmark", overwrite=False)
    size = [str(length) for length in simulated.voxel_size_um]
    return paths["image"], ["--voxel-size", *size]
