"""``cellrt segment``: a stack in, labels, table, preview and run record out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from cellrt.wording import counted

if TYPE_CHECKING:
    from contextlib import ExitStack

    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.runtime.job import Job, Options
    from cellrt.runtime.model.file import ModelFile
    from cellrt.runtime.network.engines.choice import EngineChoice
    from cellrt.runtime.network.loaded import LoadedModel
    from cellrt.runtime.results.segmentation import Segmentation

Triple = Optional[tuple[float, float, float]]  # noqa: UP045 (evaluated on Python 3.10)
Pair = Optional[tuple[float, float]]  # noqa: UP045
IntTriple = Optional[tuple[int, int, int]]  # noqa: UP045
Text = Optional[str]  # noqa: UP045
Number = Optional[float]  # noqa: UP045
Count = Optional[int]  # noqa: UP045

# Shapes of tiles whose networks stay compiled for the next image of a folder.
_SESSIONS = 4


def segment(
    stack: Annotated[
        Text,
        typer.Argument(
            metavar="STACK",
            help="TIFF, ImageJ hyperstack, OME-TIFF, PNG, JPEG, .npy, file.npz:array, "
            "file.h5:dataset or store.zarr:array; or a folder of images.",
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
    views: Annotated[
        bool,
        typer.Option(
            "--views",
            help="Show a model of single slices the stack's planes along all three axes.",
        ),
    ] = False,
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
    from cellrt.errors import UsageError
    from cellrt.runtime.image.folder import images_of, is_folder_of_images
    from cellrt.runtime.model.file import DEFAULT, open_model

    words = [*(param or ()), *([] if min_area is None else [f"min_area={min_area}"])]
    if engine_file is not None and (engine or model):
        raise UsageError(
            f"--engine-file {engine_file} brings its engine and its model along; leave "
            f"{'--engine' if engine else '--model'} out"
        )
    if "help" in words:
        if engine_file is None:
            _print_parameters(open_model(model or DEFAULT), decoder)
        else:
            from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle

            with open_bundle(engine_file) as bundle:
                _print_parameters(bundle.model, decoder)
        return
    if stack is None:
        raise UsageError(
            "STACK is missing in `cellrt segment STACK`; `cellrt segment --help` lists the options"
        )
    asked = _Asked(
        model=model,
        engine_file=engine_file,
        views=views,
        words=words,
        known={
            "axes": axes,
            "voxel_size": voxel_size,
            "channel": channel,
            "time": time,
            "series": series,
        },
        options={
            "diameter": diameter,
            "anisotropy": anisotropy,
            "intensity": intensity,
            "engine": engine,
            "precision": precision,
            "mode": "exact" if exact else "fast",
            "tile": tile,
            "halo": halo,
            "decoder": decoder,
            "min_confidence": min_confidence,
            "min_size": min_size,
            "max_size": max_size,
            "slices": slices,
            "stitch": stitch,
        },
        output=output,
        overwrite=overwrite,
        extras=[name for name, wanted in (("rois", rois), ("overlaps", overlaps)) if wanted],
        preview=preview,
        dry_run=dry_run,
        quiet=quiet,
        verbose=verbose,
    )
    events: JsonEvents | Terminal = JsonEvents() if json else Terminal(quiet=quiet)
    with ExitStack() as held:
        if isinstance(events, Terminal):
            held.callback(events.close)
        if is_folder_of_images(stack):
            images = images_of(stack, output)
            _segment_all(images, _Networks(asked, events, held, keep=_SESSIONS), asked, events)
        else:
            _segment_one(stack, _Networks(asked, events, held), asked, events)


@dataclass(frozen=True)
class _Asked:
    """What the command line says, but for the image: `known` of it, and `options` of the run."""

    model: str | None
    engine_file: str | None
    views: bool
    words: list[str]
    known: dict[str, Any]
    options: dict[str, Any]
    output: str | None
    overwrite: bool
    extras: list[str]
    preview: bool
    dry_run: bool
    quiet: bool
    verbose: bool


class _Networks:
    """Models with their engines: each is loaded for the first image that needs it."""

    def __init__(
        self, asked: _Asked, events: JsonEvents | Terminal, held: ExitStack, keep: int = 0
    ) -> None:
        self._asked, self._events, self._held, self._keep = asked, events, held, keep
        self._loaded: dict[str | None, tuple[LoadedModel, Options]] = {}

    def of(self, stack: str) -> tuple[LoadedModel, Options]:
        """The network for an image, with the options of its run; refuses those that do not fit."""
        from cellrt.runtime.preparation import default_model

        asked = self._asked
        name = asked.model
        if asked.engine_file is None and name is None:
            name = default_model(stack, **asked.known)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str | None) -> tuple[LoadedModel, Options]:
        from cellrt.runtime.decoding.parameters import split_settings
        from cellrt.runtime.decoding.registry import decoder_for
        from cellrt.runtime.job import Options
        from cellrt.runtime.model.file import open_model
        from cellrt.runtime.preparation import check, load
        from cellrt.runtime.results.save import check_extras

        asked = self._asked
        choice: EngineChoice | None = None
        if name is None:
            from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle

            assert asked.engine_file is not None
            bundle = self._held.enter_context(open_bundle(asked.engine_file))
            model, choice = bundle.model, bundle.choose()
        else:
            model = open_model(name)
            if asked.model is None and model.card.planar:
                self._events.note(f"one slice: the model is {model.card.name}")
        if asked.views:
            model = model.in_views()
        family = decoder_for(model.card, asked.options["decoder"])
        options = Options(
            **asked.options, decoder_parameters=split_settings(asked.words, family.parameters)
        )
        # What can be refused is refused before a large file is read.
        network = load(model, options, choice=choice, keep=self._keep)
        check_extras(asked.extras, check(network, options).name)
        return network, options


def _segment_all(
    images: list[Path], networks: _Networks, asked: _Asked, events: JsonEvents | Terminal
) -> None:
    """Segment one image after the other; what cannot be read or written keeps none from its turn.

    Raises
    ------
    InputError
        At the end, where images were left out; each has been told of by then.
    """
    import sys

    from cellrt.cli.console import printable
    from cellrt.errors import InputError, ResourceError, one_line

    left_out = []
    for number, image in enumerate(images, 1):
        events.note(f"image {number} of {len(images)}: {one_line(image.name)}")
        try:
            _segment_one(str(image), networks, asked, events)
        except (InputError, ResourceError) as error:
            left_out.append(image.name)
            print(printable(f"cellrt: {one_line(str(error))}"), file=sys.stderr)
    if left_out:
        raise InputError(
            f"{len(left_out)} of {counted(len(images), 'image')} could not be segmented, as told "
            f"above: {', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}"
        )


def _segment_one(
    stack: str, networks: _Networks, asked: _Asked, events: JsonEvents | Terminal
) -> None:
    """Segment one image and write its results, or print the plan."""
    from contextlib import ExitStack

    from cellrt.compile_ahead import compile_ahead
    from cellrt.runtime.image.reading import read
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.preparation import prepare
    from cellrt.runtime.progress import StageClock
    from cellrt.runtime.results import table
    from cellrt.runtime.results.preview import page
    from cellrt.runtime.results.save import (
        Outputs,
        foresee_outputs_of,
        outputs_of,
        write_results,
    )
    from cellrt.runtime.run import run

    clock = StageClock(events)
    with ExitStack() as held:
        network, options = networks.of(stack)
        outputs: list[Outputs] = []
        planned: dict[str, Path] = {}

        def hold_outputs(volume: Volume) -> None:
            wanted: dict[str, Any] = {"overwrite": asked.overwrite, "extras": asked.extras}
            if asked.dry_run:
                planned.update(foresee_outputs_of(volume, asked.output, **wanted))
                return
            outputs.append(held.enter_context(outputs_of(volume, asked.output, **wanted)))

        with clock.stage("read"):
            volume = read(stack, **asked.known, before_voxels=hold_outputs)
        if not asked.dry_run:
            works = [table.warm_up, page.warm_up] if asked.preview else [table.warm_up]
            held.enter_context(compile_ahead(*works))
        job = prepare(volume, network, options, clock)
        if asked.verbose:
            _tell_engine(network.choice, events)
        if asked.dry_run:
            _print_plan(job, planned["labels"], events)
            return
        result = run(job, clock)
        paths = write_results(result, outputs[0], clock, preview=asked.preview)
    _print_result(result, paths, events, quiet=asked.quiet)


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
    if job.view_weights is not None:
        shown = (f"{name} {weight:.3g}" for name, weight in job.view_weights.items())
        plan["views"] = f"planes along all three axes, with weights {', '.join(shown)}"
    if isinstance(events, JsonEvents):
        events.emit("plan", seconds=seconds, memory_bytes=job.plan.memory_bytes, **plan)
        return
    events.close()
    for name, text in plan.items():
        print(f"{name:14} {text}")
    for text in (*job.warnings, *job.network.choice.warnings):
        print(f"{'warning':14} {text}")
