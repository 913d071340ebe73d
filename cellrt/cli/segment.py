"""``cellrt segment``: a stack in, labels, table, preview and run record out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cellrt.wording import counted

if TYPE_CHECKING:
    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.runtime.job import Job
    from cellrt.runtime.model.file import ModelFile
    from cellrt.runtime.network.engines.choice import EngineChoice
    from cellrt.runtime.results.segmentation import Segmentation

Triple = Optional[tuple[float, float, float]]  # noqa: UP045 (evaluated on Python 3.10)
Pair = Optional[tuple[float, float]]  # noqa: UP045
IntTriple = Optional[tuple[int, int, int]]  # noqa: UP045
Text = Optional[str]  # noqa: UP045
Number = Optional[float]  # noqa: UP045
Count = Optional[int]  # noqa: UP045


def segment(
    stack: Annotated[
        Text,
        typer.Argument(
            metavar="STACK",
            help="TIFF, ImageJ hyperstack, OME-TIFF, .npy, file.npz:array, file.h5:dataset or "
            "store.zarr:array.",
        ),
    ] = None,
    model: Annotated[
        Text,
        typer.Option("--model", "-m", help="Bundled model, or path of an .onnx file [nuclei]."),
    ] = None,
    output: Annotated[
        Text,
        typer.Option(
            "--output",
            "-o",
            help="Label file (.tif); the other results go beside it [STACK.labels.tif]. "
            "Or FOLDER/ for all of them.",
        ),
    ] = None,
    voxel_size: Annotated[
        Triple, typer.Option("--voxel-size", metavar="Z Y X", help="In µm, if the file is wrong.")
    ] = None,
    diameter: Annotated[
        Number, typer.Option(help="Cell diameter in pixels; otherwise known or estimated.")
    ] = None,
    anisotropy: Annotated[
        Number, typer.Option(help="Spacing in z over spacing in x, if the voxel size is unknown.")
    ] = None,
    channel: Annotated[
        Text, typer.Option(help="Channel to segment, counted from 1, or its name.")
    ] = None,
    time: Annotated[Count, typer.Option(help="Time point, counted from 1.")] = None,
    series: Annotated[
        Text,
        typer.Option(help="Image of a file that holds several, counted from 1, or its name."),
    ] = None,
    axes: Annotated[Text, typer.Option(help="Axes of the file, such as ZCYX, if unclear.")] = None,
    intensity: Annotated[
        Pair,
        typer.Option(
            "--intensity",
            metavar="LOW HIGH",
            help="Grey values of background and of a typical cell [measured].",
        ),
    ] = None,
    engine: Annotated[
        Text,
        typer.Option(
            help="Engine by its name, of which `cellrt doctor` has a list; obeyed or refused "
            "[the best]."
        ),
    ] = None,
    engine_file: Annotated[
        Text,
        typer.Option(
            metavar="FILE",
            help="Engine with its model, as `cellrt build -o FILE` wrote it. It is a program: use "
            "only what you or people you trust have built.",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, tf32, fp16, bf16 or int8.")] = "auto",
    decoder: Annotated[
        Text, typer.Option(help="Another decoder that fits the model, by its name [the model's].")
    ] = None,
    param: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME=VALUE",
            help="Parameter of the decoder, repeatable; `--param help` lists them [the model's].",
        ),
    ] = None,
    min_area: Annotated[
        Count,
        typer.Option(help="The same as --param min_area=N, which the decoder tascan has."),
    ] = None,
    min_confidence: Annotated[
        Number, typer.Option(metavar="P", help="Leave out cells of less confidence, 0 to 1.")
    ] = None,
    min_size: Annotated[
        Number, typer.Option(metavar="N", help="Leave out smaller cells, in voxels of the image.")
    ] = None,
    max_size: Annotated[
        Number, typer.Option(metavar="N", help="Leave out larger cells, in voxels of the image.")
    ] = None,
    slices: Annotated[
        bool,
        typer.Option(
            "--slices",
            help="Segment every slice by itself, with a model of single slices; a movie's time "
            "points with --axes ZYX.",
        ),
    ] = False,
    stitch: Annotated[
        Number,
        typer.Option(
            metavar="IOU",
            help="With --slices, join cells of neighbouring slices that overlap so much, such as "
            "0.25.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Trace every voxel on its own: slower, for comparison.")
    ] = False,
    tile: Annotated[
        IntTriple, typer.Option("--tile", metavar="Z Y X", help="Tile on the model's grid.")
    ] = None,
    halo: Annotated[
        Count, typer.Option(help="Voxels dropped at inner tile faces [the model's].")
    ] = None,
    preview: Annotated[bool, typer.Option(help="Draw the preview picture.")] = True,
    rois: Annotated[
        bool,
        typer.Option("--rois", help="Also STACK.rois.zip: outlines of the cells as ImageJ ROIs."),
    ] = False,
    overlaps: Annotated[
        bool,
        typer.Option(
            "--overlaps",
            help="Also STACK.overlaps.tif: cells that are whole where others cross them, in as "
            "many layers as it takes; for the decoder embedding and one slice.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the time it would take.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also why other engines were not taken.")
    ] = False,
) -> None:
    """Segment the cells of a stack.

    Writes STACK.labels.tif, STACK.cells.csv, STACK.preview.png and STACK.run.json beside the stack;
    what was chosen of several is in their names, as in STACK.t2.c1.labels.tif.
    """
    from cellrt.limits import check_process_limits

    check_process_limits()  # before libraries load that crash where memory is short
    from contextlib import ExitStack

    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.compile_ahead import compile_ahead
    from cellrt.errors import UsageError
    from cellrt.runtime.decoding.parameters import split_settings
    from cellrt.runtime.decoding.registry import decoder_for
    from cellrt.runtime.image.reading import read
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.job import Options
    from cellrt.runtime.model.file import DEFAULT, open_model
    from cellrt.runtime.preparation import check, default_model, load, prepare
    from cellrt.runtime.progress import StageClock
    from cellrt.runtime.results import table
    from cellrt.runtime.results.preview import page
    from cellrt.runtime.results.save import (
        Outputs,
        check_extras,
        foresee_outputs_of,
        outputs_of,
        write_results,
    )
    from cellrt.runtime.run import run

    words = [*(param or ()), *([] if min_area is None else [f"min_area={min_area}"])]
    if engine_file is not None:
        from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle

        if engine or model:
            raise UsageError(
                f"--engine-file {engine_file} brings its engine and its model along; leave "
                f"{'--engine' if engine else '--model'} out"
            )
    if "help" in words:
        if engine_file is None:
            _print_parameters(open_model(model or DEFAULT), decoder)
        else:
            with open_bundle(engine_file) as bundle:
                _print_parameters(bundle.model, decoder)
        return
    if stack is None:
        raise UsageError(
            "STACK is missing in `cellrt segment STACK`; `cellrt segment --help` lists the options"
        )
    events: JsonEvents | Terminal = JsonEvents() if json else Terminal(quiet=quiet)
    clock = StageClock(events)
    with ExitStack() as held:
        if isinstance(events, Terminal):
            held.callback(events.close)
        choice: EngineChoice | None = None
        if engine_file is None:
            model_file = open_model(
                model
                or default_model(
                    stack,
                    axes=axes,
                    voxel_size=voxel_size,
                    channel=channel,
                    time=time,
                    series=series,
                )
            )
            if model is None and model_file.card.planar:
                events.note(f"one slice: the model is {model_file.card.name}")
        else:
            bundle = held.enter_context(open_bundle(engine_file))
            model_file, choice = bundle.model, bundle.choose()
        parameters = split_settings(words, decoder_for(model_file.card, decoder).parameters)
        options = Options(
            diameter=diameter,
            anisotropy=anisotropy,
            intensity=intensity,
            engine=engine,
            precision=precision,
            mode="exact" if exact else "fast",
            tile=tile,
            halo=halo,
            decoder=decoder,
            decoder_parameters=parameters,
            min_confidence=min_confidence,
            min_size=min_size,
            max_size=max_size,
            slices=slices,
            stitch=stitch,
        )
        # What can be refused is refused before a large file is read.
        network = load(model_file, options, choice=choice)
        decodes = check(network, options)
        extras = [name for name, wanted in (("rois", rois), ("overlaps", overlaps)) if wanted]
        check_extras(extras, decodes.name)
        outputs: list[Outputs] = []
        planned: dict[str, Path] = {}

        def hold_outputs(volume: Volume) -> None:
            if dry_run:
                found = foresee_outputs_of(volume, output, overwrite=overwrite, extras=extras)
                planned.update(found)
                return
            results = outputs_of(volume, output, overwrite=overwrite, extras=extras)
            outputs.append(held.enter_context(results))

        with clock.stage("read"):
            volume = read(
                stack,
                axes=axes,
                voxel_size=voxel_size,
                channel=channel,
                time=time,
                series=series,
                before_voxels=hold_outputs,
            )
        if not dry_run:
            works = [table.warm_up, page.warm_up] if preview else [table.warm_up]
            held.enter_context(compile_ahead(*works))
        job = prepare(volume, network, options, clock)
        if verbose:
            _tell_engine(network.choice, events)
        if dry_run:
            _print_plan(job, planned["labels"], events)
            return
        result = run(job, clock)
        paths = write_results(result, outputs[0], clock, preview=preview)
    _print_result(result, paths, events, quiet=quiet)


def _print_parameters(model: ModelFile, name: str | None) -> None:
    """Print what ``--param`` can set, and to what it is set without it."""
    from cellrt.runtime.decoding.parameters import parameter_lines
    from cellrt.runtime.decoding.registry import decoder_for

    decoder = decoder_for(model.card, name)
    print(f"parameters of the decoder {decoder.name} for {model.card.name}:")
    for line in parameter_lines(decoder.parameters):
        print(f"  {line}")


def _print_result(
    result: Segmentation, paths: dict[str, Path], events: JsonEvents | Terminal, *, quiet: bool
) -> None:
    """Say what came out and where it is."""
    from cellrt.cli.reporting import JsonEvents
    from cellrt.errors import one_line
    from cellrt.runtime.results.verdict import likely_right

    if isinstance(events, JsonEvents):
        files = {name: str(path) for name, path in paths.items()}
        events.emit("result", cells=len(result.table), files=files, record=result.record)
        return
    if not quiet:
        seconds = sum(
            v for k, v in result.record["seconds"].items() if not k.startswith("network_")
        )
        engine = result.record["engine"]
        ran = f"with {engine['name']} ({engine['precision']})" if engine["precision"] else ""
        print(f"{counted(len(result.table), 'cell')} in {seconds:.1f} s {ran}".rstrip())
        for name, count in result.record["left_out"].items():
            if count:
                print(f"{counted(count, 'cell')} left out by --{name.replace('_', '-')}")
        if line := likely_right(result):
            print(line)
        for path in paths.values():
            print(f"  {one_line(str(path))}")


def _tell_engine(choice: EngineChoice, events: JsonEvents | Terminal) -> None:
    """Say which engine runs, and why each better one does not."""
    events.note(f"engine {choice.reason}")
    for name, why in choice.skipped:
        events.note(f"engine {name} skipped: {why}")


def _print_plan(job: Job, labels: Path, events: JsonEvents | Terminal) -> None:
    """Print what would be computed."""
    from cellrt.cli.reporting import JsonEvents
    from cellrt.errors import one_line
    from cellrt.runtime.plan import estimate_seconds

    seconds, precision = estimate_seconds(job.plan, job.network)
    grid, model = job.plan.grid, job.network.file
    plan = {
        "input": f"{job.volume.shape} voxels (z, y, x), {job.volume.dtype}",
        "axes": f"{job.volume.file_axes}, {job.volume.axes_source}",
        "channel": f"{job.volume.channel_names[job.volume.segmented_channel]}, "
        f"{job.volume.channel_source}",
        "time point": f"{job.volume.time} of {job.volume.times}",
        "voxel size": f"{job.volume.voxel_size_um or 'unknown'} µm, {job.volume.voxel_size_source}",
        "cell diameter": f"{job.scale.diameter_pixels:.3g} pixels, {job.scale.diameter_origin}",
        "model": f"{model.card.name} ({model.path.name}), sha256 {model.sha256[:12]}",
        "intensity": job.findings.line(),
        "decoder": job.decoder.name,
        "model grid": f"{grid.shape} voxels",
        "tiles": f"{len(grid)} of {grid.tile}, {job.plan.overhead:.2f} voxels computed per voxel",
        "engine": job.network.choice.reason,
        "precision": precision,
        "memory": f"about {job.plan.memory_bytes / 1e9:.1f} GB at the peak",
        "time": f"about {seconds:.0f} s",
        "results": f"{one_line(str(labels))} and beside it",
    }
    if isinstance(events, JsonEvents):
        events.emit("plan", seconds=seconds, memory_bytes=job.plan.memory_bytes, **plan)
        return
    events.close()
    for name, text in plan.items():
        print(f"{name:14} {text}")
    for text in (*job.warnings, *job.network.choice.warnings):
        print(f"{'warning':14} {text}")
