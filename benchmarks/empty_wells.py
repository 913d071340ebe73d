"""What each model finds where there is no cell: docs/empty_wells.md.

    python benchmarks/empty_wells.py

Stacks of `cellrt simulate --style empty` with seeds far from those of the recipes, once with the
cells' size known and once without.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

from accuracy_stacks import SIMULATION_SEED
from bundled import models_of_stacks
from report import parser, table, write

import cellrt
from cellrt.errors import CellrtWarning
from cellrt.simulation.styles import simulate_style

WELLS = 14


@dataclass(frozen=True)
class Row:
    """One model on one empty well; `cells` ought to be 0."""

    model: str
    size_known: bool
    seed: int
    cells: int


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--wells", type=int, default=WELLS, help="of each kind of stain")
    wells = arguments.parse_args().wells
    warnings.simplefilter("ignore", CellrtWarning)  # that nothing was found
    rows = []
    for name in models_of_stacks():
        cells = cellrt.Segmenter(name)
        card = cellrt.load_model(name).card
        for seed in range(SIMULATION_SEED, SIMULATION_SEED + wells):
            image = simulate_style(card.target, "empty", seed=seed).image
            for size_known in (True, False):
                told = {"diameter": card.diameter_voxels, "anisotropy": 1.0} if size_known else {}
                found = len(cells(image, **told).table)
                rows.append(Row(name, size_known, seed, found))
                print(rows[-1], flush=True)
    write("empty_wells", "Empty wells", page(rows, wells), [asdict(row) for row in rows])


def page(rows: list[Row], wells: int) -> str:
    """docs/empty_wells.md."""
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        for size_known in (True, False):
            found = [r.cells for r in rows if (r.model, r.size_known) == (model, size_known)]
            wrong = sorted(filter(None, found))
            size = "known" if size_known else "searched for"
            lines.append([model, size, f"{found.count(0)} of {wells}", ", ".join(map(str, wrong))])
    header = ["model", "size of cells", "wells that stay empty", "cells found in the others"]
    return f"""\
`cellrt simulate --style empty`: stacks of 64 x 128 x 128 voxels without any cell, with stray light
in clouds, uneven light and noise of any microscope that training draws. No seed is one of a recipe.

{table(header, lines)}"""


if __name__ == "__main__":
    main()
