"""``cellrt benchmark``: engines and precisions of a model on this machine, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional

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
LAYERS_SHOWN = 15


# Evaluated on Python 3.10, so they are no `list[str] | None`.
_Words = Optional[list[str]]  # noqa: UP045
_Path = Optional[Path]  # noqa: UP045


def benchmark(
    models: Annotated[
        _Words,
        typer.Argument(
            metavar="[MODEL...]", help="Bundled models or .onnx files, such as variants [nuclei]."
        ),
    ] = None,
    model: Annotated[
        _Words, typer.Option("--model", metavar="MODEL", help="The same, as `segment` takes it.")
    ] = None,
    engine: Annotated[
        _Words,
        typer.Option(
            "--engine", metavar="ENGINE", help="One or, given again, more engines [all that work]."
        ),
    ] = None,
    precision: Annotated[
        _Words,
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="auto, fp32, tf32, fp16, bf16 or int8, one or more [those that may differ].",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Tiles at once, in the times of tiles.")] = 1,
    tile_runs: Annotated[
        int, typer.Option(min=0, help="Runs of the network that p50, p95 and p99 are of; 0: none.")
    ] = 100,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also how long each layer of the network takes.")
    ] = False,
    stack: Annotated[
        _Path, typer.Option(help="Stack to segment [simulated, 64 x 192 x 192 voxels].")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Times each segments the stack; the median counts.")
    ] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure every engine that works here, as `cellrt segment` runs it, and compare the cells.

    The first row is the reference: the first model on the CPU, in fp32. Beside each engine's times
    and cells stand the times of tiles (p50, p95, p99) and the energy per million voxels, where the
    hardware tells it.
    """
    import sys
    import tempfile

    from cellrt.errors import UsageError
    from cellrt.evaluation.engine_runs import compare_engines, require_engines, working_engines
    from cellrt.runtime.image.formats import locate
    from cellrt.runtime.model.file import open_model
    from cellrt.runtime.network.engines.base import check_precision
    from cellrt.runtime.network.engines.ladder import engine_named

    precision = [name.lower() for name in precision or ()]
    for name in precision:
        check_precision(name)
    if layers and not tile_runs:
        raise UsageError("--layers profiles a tile, and --tile-runs 0 leaves tiles out")
    files = [open_model(name) for name in [*(models or ()), *(model or ())] or ["nuclei"]]
    # A name that is none is refused before any engine is tried.
    engine = [engine_named(name).name for name in engine or ()]
    if stack is not None:
        locate(stack)
    working = working_engines()
    require_engines([name for name in engine if name not in working])
    missing: list[str] = []

    def tell(text: str) -> None:
        missing.append(text)
        print(f"not measured: {text}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        arguments: list[str] = []
        if stack is None:
            stack, arguments = _simulate(files[0].card.target, Path(folder))
        if not json:
            print(_line([column.title for column in _COLUMNS]))
        runs = compare_engines(
            stack,
            files,
            engine or working,
            precisions=precision,
            reference_engine=next((n for n in working if not engine_named(n).needs), None),
            arguments=arguments,
            repeats=repeats,
            batch=batch,
            tile_runs=tile_runs,
            layers=layers,
            report=lambda run: None if json else print(_row(run), flush=True),
            tell=tell,
        )
    if json:
        _print_json(runs, missing)
    else:
        _print_rest(runs)


class _Column(NamedTuple):
    """What stands in a column; None where there is nothing to say."""

    title: str
    width: int
    words: Callable[[EngineRun], str | None]


def _of_tile(name: str, digits: int) -> Callable[[EngineRun], str | None]:
    def words(run: EngineRun) -> str | None:
        value = getattr(run.tile, name, None)
        return None if value is None else f"{value:.{digits}f}"

    return words


def _megabytes(value: int | None) -> str | None:
    return None if value is None else f"{value / 1e6:.0f}"


_COLUMNS = (
    _Column("model", -20, lambda run: run.model),
    _Column("engine", -16, lambda run: run.engine),
    _Column("computes", -8, lambda run: run.precision),
    _Column("batch", 5, _of_tile("batch", 0)),
    _Column("p50 ms", 7, _of_tile("p50_ms", 2)),
    _Column("p95 ms", 7, _of_tile("p95_ms", 2)),
    _Column("p99 ms", 7, _of_tile("p99_ms", 2)),
    _Column("J/Mvoxel", 8, _of_tile("joules_per_million_voxels", 3)),
    _Column("network", 7, lambda run: f"{run.network_voxels_per_second / 1e6:.2f}"),
    _Column("all", 6, lambda run: f"{run.voxels_per_second / 1e6:.2f}"),
    _Column("MB", 6, lambda run: _megabytes(run.peak_memory_bytes)),
    _Column("GPU MB", 6, lambda run: _megabytes(run.peak_device_memory_bytes)),
    _Column("build s", 7, _of_tile("build_seconds", 1)),
    _Column("AP75", 5, lambda run: f"{run.agreement:.3f}"),
)


def _row(run: EngineRun) -> str:
    return _line([column.words(run) or "-" for column in _COLUMNS])


def _line(cells: Sequence[str]) -> str:
    return " ".join(
        f"{cell:<{-column.width}}" if column.width < 0 else f"{cell:>{column.width}}"
        for column, cell in zip(_COLUMNS, cells, strict=True)
    ).rstrip()


def _print_json(runs: Sequence[EngineRun], missing: Sequence[str]) -> None:
    import dataclasses
    import json

    from cellrt._version import __version__
    from cellrt.runtime.machine.hardware import this_machine

    found: dict[str, Any] = {
        "cellrt": __version__,
        "machine": dataclasses.asdict(this_machine()),
        "runs": [dataclasses.asdict(run) for run in runs],
        "not_measured": list(missing),
    }
    print(json.dumps(found, indent=1))


def _print_rest(runs: Sequence[EngineRun]) -> None:
    """What has no place in the table."""
    from cellrt.wording import counted

    timed = [run.tile for run in runs if run.tile is not None]
    print(
        "network, all: million voxels a second, of tiles and of the stack from start to end; "
        "AP75: how well the cells are those of the first row, the reference"
    )
    for tile in {(tile.tile, tile.runs): tile for tile in timed}.values():
        shape = " x ".join(map(str, tile.tile))
        few = "" if tile.runs >= 100 else "; p95 needs 20 of them, p99 needs 100"
        print(f"p50, p95, p99: per tile of {shape} voxels, of {counted(tile.runs, 'run')}{few}")
    for source in dict.fromkeys(tile.energy for tile in timed):
        of = [_name(run) for run in runs if run.tile is not None and run.tile.energy == source]
        print(f"energy of {', '.join(of)}: {source}")
    print("seconds per stage:")
    for run in runs:
        parts = ", ".join(f"{s} {run.seconds[s]:.2f}" for s in STAGES if run.seconds.get(s))
        print(f"  {_name(run)}: {parts}")
    for run in runs:
        _print_layers(run)


def _name(run: EngineRun) -> str:
    return f"{run.model} {run.engine} {run.precision}"


def _print_layers(run: EngineRun) -> None:
    if not run.layers:
        return
    total = sum(layer.milliseconds for layer in run.layers)
    slowest = sorted(run.layers, key=lambda layer: layer.milliseconds, reverse=True)
    print(f"layers of {_name(run)}, {total:.2f} ms while they were timed, the slowest first:")
    for layer in slowest[:LAYERS_SHOWN]:
        share = layer.milliseconds / max(total, 1e-9)
        about = " ".join(filter(None, (layer.kind, layer.implementation)))
        print(f"  {layer.milliseconds:8.3f} ms {share:4.0%}  {layer.name}  {about}".rstrip())
    rest = slowest[LAYERS_SHOWN:]
    if rest:
        print(f"  {sum(layer.milliseconds for layer in rest):8.3f} ms in {len(rest)} more")


def _simulate(kind: str, folder: Path) -> tuple[Path, list[str]]:
    """A stack as a user might have it, and its voxel size in words."""
    from cellrt.simulation.files import save_stack
    from cellrt.simulation.styles import simulate_style

    simulated = simulate_style(kind, shape=(64, 192, 192), seed=7)
    paths = save_stack(simulated, folder, "benchmark", overwrite=False)
    size = [str(length) for length in simulated.voxel_size_um]
    return paths["image"], ["--voxel-size", *size]
