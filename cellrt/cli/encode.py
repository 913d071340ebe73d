"""``cellrt encode``: the shapes of the cells of a label image as spherical harmonics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cellrt.files import output_file
from cellrt.wording import counted

if TYPE_CHECKING:
    from cellrt.runtime.decoding.star.shapes import Shapes

Triple = Optional[tuple[float, float, float]]  # noqa: UP045 (evaluated on Python 3.10)

_FLAGGED = {
    "border": "cut by the border of the image",
    "hole": "with holes, which are filled",
    "split": "in parts that do not touch",
    "single_voxel": "of a single voxel",
    "centre_moved": "around their centroid, with the centre in their nearest voxel",
}
# A cell of which more is misplaced is not described well.
_MUCH = 0.05


def encode(
    labels: Annotated[
        str,
        typer.Argument(help="Label image: TIFF, .npy, .npz:array, file.h5:dataset or .zarr."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", parser=output_file, help="The table, a .csv file."
        ),
    ],
    order: Annotated[
        int, typer.Option(help="Highest degree, 1 to 11; (order + 1)² numbers for each cell.")
    ] = 5,
    voxel_size: Annotated[
        Triple, typer.Option("--voxel-size", metavar="Z Y X", help="In µm [the file's].")
    ] = None,
    axes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Axes of the file, such as ZYX, where it does not say them."),
    ] = None,
    channel: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Channel that holds the labels, from 1 or by name."),
    ] = None,
    time: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Time point, from 1."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    """Describe the shape of every cell of a label image by spherical harmonics.

    Writes a table with one row per cell: centre, what is odd about it, power per degree, which no
    rotation changes, and the coefficients, from which `cellrt decode` makes the cells again.
    """
    import sys

    from cellrt.errors import InputError
    from cellrt.evaluation.doubts import doubt_labels
    from cellrt.files import atomic_outputs, foresee_outputs, refuse_other_ending
    from cellrt.runtime.decoding.star.harmonics import check_order
    from cellrt.runtime.decoding.star.shapes import encode as describe
    from cellrt.runtime.image.reading import read_labels
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.results.shape_table import shape_table

    check_order(order)
    if labels.lower().endswith(".csv"):
        raise InputError(f"{labels} is a table; `cellrt decode` draws its cells")
    refuse_other_ending(output, (".csv",), "a table")

    def look(volume: Volume) -> None:
        assert volume.path is not None
        foresee_outputs({"shapes": output}, overwrite=overwrite, inputs=[volume.path])
        if volume.is_2d:
            raise InputError(
                f"{labels} is one slice; expected a stack: spherical harmonics describe cells in "
                "three dimensions"
            )

    image, volume = read_labels(
        labels,
        axes=axes,
        voxel_size_um=voxel_size,
        channel=channel,
        time=time,
        before_voxels=look,
    )
    assert volume.path is not None
    with atomic_outputs({"shapes": output}, overwrite=overwrite, inputs=[volume.path]) as paths:
        doubt = doubt_labels(image, f"file {volume.path.name}")
        if doubt is not None:
            raise InputError(doubt)
        size = volume.full_voxel_size_um
        warnings = list(volume.warnings)
        if size is None:
            warnings.append(
                "the voxel size is not known, and voxels are taken for cubes; where they are none, "
                "shapes are wrong: give --voxel-size Z Y X"
            )
        shapes = describe(image, size, order=order)
        if not len(shapes):
            warnings.append(f"{volume.path.name} holds no cells; the table has no rows")
        for text in warnings:
            print(f"warning: {text}", file=sys.stderr)
        shape_table(shapes).write_csv(paths["shapes"])
    if not quiet:
        _print_findings(shapes, output)


def _print_findings(shapes: Shapes, output: Path) -> None:
    """Say what was described, and which cells are not what they should be."""
    from cellrt.errors import one_line

    numbers = counted(shapes.coefficients.shape[1], "coefficient")
    print(f"{counted(len(shapes), 'cell')}, order {shapes.order}, {numbers} each")
    for name, words in _FLAGGED.items():
        if found := int(shapes.flagged(name).sum()):
            print(f"  {counted(found, 'cell')} {words}")
    if lossy := int((shapes.misplaced_share > _MUCH).sum()):
        print(
            f"  {counted(lossy, 'cell')} of which over {_MUCH:.0%} of the volume is misplaced, as "
            "they are not star-convex; see misplaced_share"
        )
    print(f"  {one_line(str(output))}")
