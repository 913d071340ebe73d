"""What the halo costs and gains: tiles against the whole volume at once. Writes docs/halo.md.

    python benchmarks/halo.py

Each model segments a simulated stack in tiles of its card's size with halos of 0 to 16 voxels, and
once in a single tile, which has no inner faces. The network computes in fp32.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from bundled import models_of_stacks
from report import parser, table, write

import cellrt
from cellrt.errors import CellrtWarning
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.simulation.styles import simulate_style

# Two tiles along each axis, which end where the stack ends: nothing is mirrored at its faces.
SHAPE = (96, 160, 160)
LARGE = (256, 512, 512)  # where the cost is told, which needs no run
HALOS = (0, 2, 4, 8, 16)
SEED = 31
IOU = 0.9


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", nargs="*", default=models_of_stacks())
    options = arguments.parse_args()
    warnings.simplefilter("ignore", CellrtWarning)
    rows = [row for name in options.model for row in measured(open_model(name))]
    cells = [
        [
            row["model"],
            f"{row['halo']}{' (card)' if row['card'] else ''}",
            f"{row['computed']:.2f}",
            f"{row['moved']:.2%}",
            f"{row['ap90']:.3f}",
            row["cells"],
        ]
        for row in rows
    ]
    header = [
        *("model", "halo", "voxels computed per voxel", "voxels in another cell"),
        *(f"AP at IoU {IOU:g}", "cells"),
    ]
    text = f"""\
Simulated stacks of {SHAPE} voxels whose cells have the size that the model knows, in eight tiles of
its card and fp32, against the same network over the whole stack in one tile. Overlapping tiles are
blended whatever the halo. The cost is that of a stack of {LARGE} voxels.

{table(header, cells)}"""
    write("halo", "Halo", text, rows)


def measured(model: ModelFile) -> list[dict[str, Any]]:
    """One row for each halo."""
    card = model.card
    stack = simulate_style(
        card.target, seed=SEED, shape=SHAPE, diameter_voxels=card.diameter_voxels
    )
    told: dict[str, Any] = {"diameter": card.diameter_voxels, "anisotropy": 1.0}
    whole = cellrt.segment(stack.image, model=model, tile=SHAPE, precision="fp32", **told).labels
    rows = []
    for halo in sorted({*HALOS, card.halo}):
        cells = cellrt.Segmenter(model, tile=card.tile, halo=halo, precision="fp32")
        grid = plan_tiles(
            LARGE, halo=halo, blend=card.blend, multiple=card.multiple, tile=card.tile
        )
        labels = cells(stack.image, **told).labels
        scores = cellrt.evaluate(labels, whole, thresholds=(IOU,)).at(IOU)
        rows.append(
            {
                "model": card.name,
                "halo": halo,
                "card": halo == card.halo,
                "computed": grid.computed_voxels / math.prod(LARGE),
                "moved": moved(labels, whole),
                "ap90": scores.average_precision,
                "cells": int(labels.max()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def moved(labels: np.ndarray, whole: np.ndarray) -> float:
    """Share of the voxels that are not in the cell which holds most of their whole cell."""
    pairs, counts = np.unique(np.stack([whole.ravel(), labels.ravel()]), axis=1, return_counts=True)
    most = np.zeros(int(whole.max()) + 1, np.int64)
    np.maximum.at(most, pairs[0], counts)
    return 1 - float(most.sum()) / whole.size


if __name__ == "__main__":
    main()
