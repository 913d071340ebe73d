"""What shapes can reach at best: cells encoded and drawn again. Writes docs/ceiling.md and .png.

    python benchmarks/ceiling.py

Every cell of every label image becomes coefficients of spherical harmonics up to some order, or
radii along some rays, and voxels again; its Dice is no network's fault. This is the HarmonicNet
paper's Figure 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ceiling_plot import draw
from numpy.typing import NDArray
from report import DATA, DOCS, parser, table, write

import cellrt
from cellrt.runtime.decoding.star.directions import fibonacci_lattice
from cellrt.runtime.decoding.star.harmonics import coefficient_count
from cellrt.runtime.decoding.star.radii import measure_radii
from cellrt.runtime.decoding.star.rasterise import rasterise_rays
from cellrt.runtime.decoding.star.shapes import consecutive_labels, decode, encode
from cellrt.runtime.image.reading import read_array

ORDERS = tuple(range(1, 12))
RAYS = (16, 32, 36, 64, 96, 128, 256)
# Of the paper and of StarDist, for the table.
SHOWN_ORDERS, SHOWN_RAYS = (2, 3, 5, 7, 11), (36, 96, 256)
LOSSY = 0.05

Size = tuple[float, float, float]
Stack = tuple[NDArray[Any], Size]


class Tissue(NamedTuple):
    """Label images of one kind."""

    name: str
    files: tuple[Path, ...]
    stacks: Callable[[], Iterable[Stack]]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="*", help="names that begin like this")
    options = arguments.parse_args()
    chosen = [
        tissue
        for tissue in tissues()
        if not options.only or tissue.name.startswith(tuple(options.only))
    ]
    missing = [tissue.name for tissue in chosen if not all(f.exists() for f in tissue.files)]
    rows = [measured(tissue) for tissue in chosen if tissue.name not in missing]
    if options.only:
        return
    draw(rows, DOCS / "ceiling.png")
    header = [
        "cells", "number", "of one voxel", f"lose over {LOSSY:.0%}",
        *(f"order {n} ({coefficient_count(n)})" for n in SHOWN_ORDERS),
        *(f"{n} rays" for n in SHOWN_RAYS),
    ]  # fmt: skip
    cells = [
        [
            row["tissue"], row["cells"], row["single_voxels"], row["lossy"],
            *(f"{row['harmonics'][str(coefficient_count(n))]:.3f}" for n in SHOWN_ORDERS),
            *(f"{row['rays'][str(n)]:.3f}" for n in SHOWN_RAYS),
        ]
        for row in rows
    ]  # fmt: skip
    absent = f"Not here: {', '.join(missing)}.\n\n" if missing else ""
    text = f"""\
Mean Dice over all cells, single voxels and scraps included, after encoding all cells of an image
and drawing them together again: the best that a network for such shapes can reach. In brackets the
coefficients of a cell. A cell that loses volume is not star-convex, which no order mends. Rays are
a Fibonacci lattice, and their ends the corners of a polyhedron, as in StarDist. The simulated
nuclei are made of harmonics up to order 5, as the paper's are, so that 36 coefficients fit them by
design. Plant tissue, flat epithelium and Platynereis say no voxel size and are taken for cubes.

![Mean Dice against the numbers that describe a cell](ceiling.png)

{absent}{table(header, cells)}"""
    write("ceiling", "What shapes can reach", text, rows)


def tissues() -> list[Tissue]:
    """All label images, by what they show."""
    only, embryos = DATA / "labels_only", DATA / "nuclei" / "embryos" / "labels"
    plant, monolayer = only / "plant_tissue_labels.h5", only / "monolayer_labels.h5"
    flat, sparse = only / "hipsc_cells.tif", only / "platynereis_nuclei.tif"
    worms = sorted((DATA / "membranes" / "elegans").glob("t*.h5"))
    mice = sorted(embryos.glob("*.tif"))
    cubes = (1.0, 1.0, 1.0)
    return [
        Tissue("simulated nuclei", (), simulated_nuclei),
        Tissue("plant tissue", (plant,), partial(stored, [f"{plant}:label"], cubes)),
        Tissue("flat epithelium", (flat,), partial(stored, [flat], cubes)),
        Tissue("curved monolayer", (monolayer,), partial(cells_of_monolayer, monolayer)),
        Tissue(
            "C. elegans embryo",
            tuple(worms) or (DATA / "membranes" / "elegans",),
            partial(stored, [f"{file}:label" for file in worms], (0.225,) * 3),
        ),
        Tissue("Platynereis nuclei", (sparse,), partial(stored, [sparse], cubes)),
        Tissue(
            "mouse embryo nuclei",
            tuple(mice) or (embryos,),
            partial(stored, mice, (1.75, 0.8, 0.8)),
        ),
    ]


def simulated_nuclei() -> Iterator[Stack]:
    """The nuclei of the paper, in its setting."""
    from cellrt.simulation.paper_nuclei import simulate_paper_nuclei

    yield simulate_paper_nuclei("noise").labels, (1.0, 1.0, 1.0)


def stored(files: Iterable[str | Path], size: Size) -> Iterator[Stack]:
    """Label images as they are stored."""
    for file in files:
        yield np.asarray(read_array(file)).squeeze(), size


def cells_of_monolayer(file: Path) -> Iterator[Stack]:
    """Cells without what is called 1 and 28 there, the background and the lumen."""
    labels = np.asarray(read_array(f"{file}:segmentation"))
    yield np.where(np.isin(labels, (1, 28)), 0, labels), (0.75, 0.2076, 0.2076)


def measured(tissue: Tissue) -> dict[str, Any]:
    """Mean Dice by numbers per cell, over the cells of all stacks."""
    harmonics = dict.fromkeys((coefficient_count(order) for order in ORDERS), 0.0)
    rays = dict.fromkeys(RAYS, 0.0)
    cells = single = lossy = 0
    for labels, size in tissue.stacks():
        ids, consecutive = consecutive_labels(labels)
        cells += ids.size
        for order in ORDERS:
            shapes = encode(consecutive, size, order=order)
            harmonics[coefficient_count(order)] += total_dice(decode(shapes), consecutive)
        single += int(shapes.flagged("single_voxel").sum())
        lossy += int((shapes.misplaced_share > LOSSY).sum())
        for count in RAYS:
            directions = fibonacci_lattice(count)
            found = measure_radii(consecutive, ids.size, directions, size)
            drawn = rasterise_rays(
                consecutive.shape,
                size,
                found.centres * size,
                found.values.astype(np.float64),
                directions,
            )
            rays[count] += total_dice(drawn, consecutive)
    row = {
        "tissue": tissue.name,
        "cells": cells,
        "single_voxels": single,
        "lossy": lossy,
        "harmonics": {str(number): value / cells for number, value in harmonics.items()},
        "rays": {str(number): value / cells for number, value in rays.items()},
    }
    print(row, flush=True)
    return row


def total_dice(labels: NDArray[Any], truth: NDArray[Any]) -> float:
    """Sum of the Dice of all true cells, each with its best match."""
    scores = cellrt.evaluate(labels, truth, thresholds=(0.5,))
    return scores.mean_dice * scores.true_cells


if __name__ == "__main__":
    main()
