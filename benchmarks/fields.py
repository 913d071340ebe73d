"""The same cells in fields up to a thousand times as large: docs/fields.md.

    python benchmarks/fields.py
    python benchmarks/fields.py --model nuclei --factors 1 10     # prints only

Around a stack comes more of its own background, drawn voxel by voxel from where no cell is near.
What surrounds cells must not change them: neither how many are found nor how large they are, nor
how large they are taken for where nothing is told.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from accuracy import model_options
from accuracy_stacks import SIMULATION_SEED, LabelledStack, median_diameter, stacks
from numpy.typing import NDArray
from report import parser, table, write
from scipy import ndimage

import cellrt
from cellrt.errors import CellrtWarning, InputError, ResourceError
from cellrt.simulation.styles import simulate_style

MODELS = ("nuclei", "membranes")
FACTORS = (1, 10, 100, 1000)
# A few dozen cells, so that a thousand times as much is computed within minutes.
SHAPE = {"nuclei": (36, 60, 60), "membranes": (56, 64, 64)}
DIAMETER = {"nuclei": 12.0, "membranes": 18.0}
SIMULATED = 1
FEWEST_CELLS = 12
REAL = ("Emb04_t501", "Emb09_t501")
# On the model's grid: 16 bytes each, and about five minutes on two quiet cores.
LARGEST = 400e6
# Cells at a stack's faces are cut. What closes them changes them, so that the smallest field leaves
# them so much room, in diameters along x.
MARGIN = 0.5
# Voxels nearer to a cell than this share of its diameter have some of its light.
NEAR = 0.25

# Held to: relative to the smallest field.
MOST_VOLUME, MOST_CELLS = 0.05, 0.02


@dataclass(frozen=True)
class Row:
    """One stack in one field; ``searched`` is the diameter that is found where none is told."""

    model: str
    stack: str
    factor: int
    shape: tuple[int, ...]
    cells: int
    voxels: int
    searched: float
    seconds: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", nargs="+", help="measure these models only, print only")
    arguments.add_argument("--factors", type=int, nargs="+", default=FACTORS)
    options = arguments.parse_args()
    warnings.simplefilter("ignore", CellrtWarning)
    rows = [row for name in options.model or MODELS for row in measured(name, options.factors)]
    text = document(rows)
    if options.model or tuple(options.factors) != FACTORS:
        print(text)
    else:
        write("fields", "Large fields", text, [asdict(row) for row in rows])


def measured(name: str, factors: list[int]) -> Iterator[Row]:
    """One row for each stack and field."""
    cells = cellrt.Segmenter(name)
    card = cellrt.load_model(name).card
    for stack in chosen(card.target):
        image, labels = with_margin(*stack.load(), stack.anisotropy)
        told, _ = model_options(stack, median_diameter(labels, stack.anisotropy))
        for factor in factors:
            field = widened(image, labels, factor, np.random.default_rng(factor))
            start = time.perf_counter()
            try:
                job = cells.prepare(field, **told)
            except (InputError, ResourceError):  # more than can be decoded, or than memory holds
                break
            if math.prod(job.plan.grid.shape) > LARGEST:
                break
            result = cells.decode(cells.predict(job))
            seconds = time.perf_counter() - start
            unknown = cells.prepare(field, anisotropy=stack.anisotropy).scale.diameter_pixels
            yield Row(
                name,
                stack.name,
                factor,
                field.shape,
                len(result.table),
                int(np.count_nonzero(result.labels)),
                unknown,
                seconds,
            )
            print(_line(field, stack, factor, result, unknown), flush=True)


def chosen(target: str) -> list[LabelledStack]:
    """Simulated stacks, and real ones that no model was trained on."""
    found, seed = [], SIMULATION_SEED
    while len(found) < SIMULATED:
        stack = simulated(target, seed)
        labels = stack.load()[1]
        # Tissue with a surface of its own: where it is cut through, walls are missing.
        cut = target == "membranes" and _reaches_faces(labels)
        if np.unique(labels).size > FEWEST_CELLS and not cut:
            found.append(stack)
        seed += 1
    return found + [s for s in stacks() if s.name in REAL and s.model == target]


def simulated(target: str, seed: int) -> LabelledStack:
    """A small stack with cells of the size that the model knows."""

    def load() -> tuple[NDArray[Any], NDArray[Any]]:
        made = simulate_style(
            target, seed=seed, shape=SHAPE[target], diameter_voxels=DIAMETER[target]
        )
        return made.image, made.labels

    return LabelledStack(f"{target} typical {seed}", f"simulated {target}", target, load)


def _reaches_faces(labels: NDArray[Any]) -> bool:
    inner = labels[1:-1, 1:-1, 1:-1]
    return np.count_nonzero(labels) > np.count_nonzero(inner)


def with_margin(
    image: NDArray[Any], labels: NDArray[Any], anisotropy: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The smallest field: a stack with some room around cells that reach its faces."""
    if not _reaches_faces(labels):
        return image, labels
    pixels = MARGIN * median_diameter(labels, anisotropy)
    width = [round(pixels / anisotropy), round(pixels), round(pixels)]
    shape = tuple(n + 2 * more for n, more in zip(image.shape, width, strict=True))
    field = in_the_dark(image, labels, shape, np.random.default_rng(0))
    return field, np.pad(labels, [(more, more) for more in width])


def widened(
    image: NDArray[Any], labels: NDArray[Any], factor: int, rng: np.random.Generator
) -> NDArray[Any]:
    """Put a stack in the middle of a field with `factor` times as many voxels."""
    shape = tuple(round(n * factor ** (1 / 3)) for n in image.shape)
    return in_the_dark(image, labels, shape, rng)


def in_the_dark(
    image: NDArray[Any], labels: NDArray[Any], shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    """Put a stack in the middle of a field of its own background."""
    near = NEAR * median_diameter(labels, 1.0)
    dark = image[ndimage.distance_transform_edt(labels == 0) > near]
    field = np.empty(shape, image.dtype)
    for plane in field:
        plane[...] = dark[rng.integers(0, dark.size, plane.shape, np.uint32)]
    start = [(wide - n) // 2 for wide, n in zip(shape, image.shape, strict=True)]
    field[tuple(slice(a, a + n) for a, n in zip(start, image.shape, strict=True))] = image
    return field


def document(rows: list[Row]) -> str:
    """docs/fields.md."""
    lines = []
    for row in rows:
        small = next(r for r in rows if (r.model, r.stack) == (row.model, row.stack))
        volume, cells = row.voxels / small.voxels - 1, row.cells / small.cells - 1
        within = abs(volume) <= MOST_VOLUME and abs(cells) <= MOST_CELLS
        shape = " x ".join(map(str, row.shape))
        lines.append(
            [row.model, row.stack, row.factor, shape, row.cells, f"{volume:+.1%}",
             f"{row.searched:.1f}", "yes" if within else "**no**", f"{row.seconds:.0f}"]
        )  # fmt: skip
    header = (
        *("model", "stack", "field", "shape (z, y, x)", "cells", "total volume"),
        *("diameter found if none is told", "within", "seconds"),
    )
    return f"""\
The same cells in fields up to {max(r.factor for r in rows)} times as large: around each stack comes
more of its own background, drawn voxel by voxel from where no cell is near. Volume is relative to
the smallest field, the stack itself, with room of half a cell around it where cells are cut by its
faces: what closes such a cell changes it. Target: total volume within {MOST_VOLUME:.0%}, number of
cells within {MOST_CELLS:.0%}. Simulated stacks have cells of a known size; of real ones, no part of
which was trained on, the voxel size is told, and they end where the network would compute more than
{LARGEST / 1e6:.0f} million voxels.

{table(header, lines)}"""


def _line(
    field: NDArray[Any], stack: LabelledStack, factor: int, result: Any, unknown: float
) -> str:
    return (
        f"{stack.name:24} {factor:5} {field.shape} {len(result.table)} cells, "
        f"{np.count_nonzero(result.labels)} voxels, {unknown:.1f}, "
        f"{result.record['intensity']['line']}"
    )


if __name__ == "__main__":
    main()
