"""``cellrt segment``: a stack in, labels, table, preview and run record out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cellrt.cli.segment_images import Asked, Networks, segment_one
from cellrt.cli.segment_report import print_parameters

if TYPE_CHECKING:
    from cellrt.cli.reporting import JsonEvents, Terminal

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
            help="TIFF, ImageJ hyperstack, OME-TIFF, PNG, JPEG, .npy, file.npz:array, "
            "file.h5:dataset or store.zarr:array; or a folder of images.",
        ),
    ] = None,
    model: Annotated[
        Text,
        typer.Option(
            "--model",
            "-m",
            help="Bundled model, or path of an .onnx file [nuclei; of one slice nuclei2d].",
        ),
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
    fit: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--fit/--no-fit",
            help="The same as --param fit=true or false, which the decoder star has [the model's].",
            show_default=False,
        ),
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
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace results. Without it, images of a folder that are done, with the same "
            "options, stay as they are.",
        ),
    ] = False,
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
    from cellrt.runtime.image.folder import images_of, images_passed_over, is_folder_of_images
    from cellrt.runtime.model.file import DEFAULT, open_model
    from cellrt.wording import counted

    words = [
        *(param or ()),
        *([] if min_area is None else [f"min_area={min_area}"]),
        *([] if fit is None else [f"fit={str(fit).lower()}"]),
    ]
    if engine_file is not None and (engine or model):
        raise UsageError(
            f"--engine-file {engine_file} brings its engine and its model along; leave "
            f"{'--engine' if engine else '--model'} out"
        )
    if "help" in words:
        if engine_file is None:
            print_parameters(open_model(model or DEFAULT), decoder)
        else:
            from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle

            with open_bundle(engine_file) as bundle:
                print_parameters(bundle.model, decoder)
        return
    if stack is None:
        raise UsageError(
            "STACK is missing in `cellrt segment STACK`; `cellrt segment --help` lists the options"
        )
    asked = Asked(
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
            "precision": precision.lower(),
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
            from cellrt.cli.segment_folder import Folder

            images, others = images_of(stack, output), images_passed_over(stack)
            if others:
                events.note(
                    f"{counted(len(others), 'file')} of a kind that cellrt does not read passed "
                    f"over, the first is {others[0].name}; save such images as TIFF or PNG",
                    warning=True,
                )
            Folder(images, asked, events, held).segment()
        else:
            segment_one(stack, Networks(asked, events, held), asked, events)()
