"""``cellrt export``: from a checkpoint to a model file, or from a model to another precision."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from cellrt.files import output_file
from cellrt.wording import counted, file_size

if TYPE_CHECKING:
    from cellrt.export.gate.compare import Parity


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Checkpoint of `cellrt train`; with --precision also an .onnx file or the name "
            "of a bundled model.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=output_file,
            help="The .onnx file to write [with --precision of a model file: mine.fp16.onnx "
            "beside mine.onnx, where engines look for it].",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16 or int8; written into the file.")
    ] = "fp32",
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STACK",
            help="Real stack to calibrate int8 with and to judge with; repeatable [simulated].",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Describe and decode as this recipe says, not as the checkpoint does."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON list of measured scores for the model card.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Export a checkpoint to a self-describing ONNX file, after the parity gate.

    With --precision the weights and the computation change to fp16, bf16 or int8; a variant whose
    cells differ from the fp32 model's is refused.
    """
    from tempfile import TemporaryDirectory

    from cellrt.errors import UsageError
    from cellrt.files import check_outputs
    from cellrt.runtime.model.file import bundled_models, open_model

    bundled = str(source) in bundled_models()
    is_model = bundled or source.suffix == ".onnx"
    precision = precision.lower()
    if precision not in ("fp32", "fp16", "bf16", "int8"):
        raise UsageError(f"no precision {precision!r}; choose fp32, fp16, bf16 or int8")
    if output is None:
        if precision == "fp32" or bundled or not is_model:
            raise UsageError("--output is missing; say which .onnx file to write")
        output = open_model(source).variant_path(precision)
    if precision == "fp32":
        if is_model:
            raise UsageError(f"{source} is exported already; give --precision to convert it")
        if calibrate:
            raise UsageError("--calibrate needs --precision int8, fp16 or bf16")
        _export_checkpoint(source, output, recipe, scores, overwrite=overwrite)
        return
    if is_model:
        if recipe is not None or scores is not None:
            raise UsageError(f"--recipe and --scores describe a checkpoint; {source} is a model")
        _export_variant(source, output, precision, calibrate or [], overwrite=overwrite)
        return
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: the output must end in .onnx")
    check_outputs({"model": output}, overwrite=overwrite, inputs=[source])  # before the long work
    with TemporaryDirectory() as folder:
        exact = Path(folder) / f"{output.stem}.onnx"
        _export_checkpoint(source, exact, recipe, scores, overwrite=False, announce=False)
        _export_variant(exact, output, precision, calibrate or [], overwrite=overwrite)


def _export_checkpoint(
    checkpoint: Path,
    output: Path,
    recipe: Path | None,
    scores: Path | None,
    *,
    overwrite: bool,
    announce: bool = True,
) -> None:
    from cellrt.errors import UsageError

    try:
        from cellrt.export.checkpoint import export as run
        from cellrt.export.checkpoint import read_scores
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
    _print_parity(exported.parity)
    if announce:
        print(f"{exported.path}: {exported.size_bytes / 1e6:.1f} MB")
        print(f"`cellrt export {exported.path} --precision fp16` makes the file that GPUs take")


def _export_variant(
    model: Path, output: Path, precision: str, stacks: list[str], *, overwrite: bool
) -> None:
    tools = _variant_tools()
    if precision == "int8" and not stacks:
        print("no --calibrate stack given: calibrating on simulated stacks", file=sys.stderr)
    variant = tools.write_variant(model, output, precision, stacks=stacks, overwrite=overwrite)
    _print_parity(variant.parity)
    print(f"{output}: {precision}, {file_size(output)}, {variant.tiles}")


def _variant_tools() -> ModuleType:
    """Import what makes variants, or say which extras bring what is missing.

    Only that: the extra onnxruntime overwrites the ONNX Runtime for GPUs, which does as well.
    """
    from importlib import import_module

    from cellrt.errors import UsageError

    missing = []
    for package, extra in (("onnx", "precision"), ("onnxruntime", "onnxruntime")):
        try:
            import_module(package)
        except ImportError:
            missing.append((package, extra))
    if missing:
        packages, extras = zip(*missing, strict=True)
        raise UsageError(
            f"--precision needs packages that are not installed ({', '.join(packages)}); "
            f"install them with: pip install 'cellrt[{','.join(extras)}]'"
        )
    return import_module("cellrt.export.precision_variant")


def _print_parity(rows: tuple[Parity, ...]) -> None:
    for row in rows:
        radii = "" if row.radius_error is None else f"radii within {row.radius_error:.2g} voxels, "
        print(
            f"{row.engine}: largest difference {row.max_error:.2g}, mean {row.mean_error:.2g}, "
            f"beyond {row.tolerance.voxel:g}: {100 * row.share_beyond:.3g} %, {radii}"
            f"AP at IoU {row.tolerance.iou:g} {row.instance_ap:.3f} of {counted(row.cells, 'cell')}"
        )
