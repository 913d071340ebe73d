"""``cellrt decode``: a label image out of a table of shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellrt.files import output_file
from cellrt.wording import counted


def decode(
    shapes: Annotated[Path, typer.Argument(help="Table of `cellrt encode`.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=output_file,
            help="The label image, a .tif file.",
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the labels.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    """Draw the cells of a table of shapes into an image of the size that they come from.

    A voxel inside of several shapes goes to that in which it is deepest: where its distance from
    the centre is the smallest part of the radius.
    """
    import math
    import sys

    import numpy as np

    from cellrt.errors import one_line
    from cellrt.files import atomic_outputs, refuse_other_ending
    from cellrt.runtime.decoding.star.shapes import cell_ids
    from cellrt.runtime.decoding.star.shapes import decode as draw
    from cellrt.runtime.image.volume import volume_from_array
    from cellrt.runtime.results.label_tiff import write_labels
    from cellrt.runtime.results.shape_table import read_shapes

    refuse_other_ending(output, (".tif", ".tiff"), "a label image")
    table = read_shapes(shapes)
    voxels = math.prod(table.image_shape)
    with atomic_outputs(
        {"labels": output}, overwrite=overwrite, needed_bytes=voxels // 2, inputs=[shapes]
    ) as paths:
        labels = draw(table)
        missing = np.setdiff1d(table.ids, cell_ids(labels))
        if missing.size:
            print(
                f"warning: {counted(missing.size, 'cell')} of {len(table)} left no voxel: too "
                f"small, outside of the image or covered by others, the first with the id "
                f"{missing[0]}",
                file=sys.stderr,
            )
        size = table.voxel_size if table.unit == "um" else None
        volume = volume_from_array(labels, axes="ZYX", voxel_size_um=size)
        write_labels(paths["labels"], labels, volume)
    if not quiet:
        z, y, x = table.image_shape
        drawn = counted(len(table) - missing.size, "cell")
        print(f"{drawn} in {z} x {y} x {x} voxels")
        print(f"  {one_line(str(output))}")
