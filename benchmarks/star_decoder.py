"""The decoder of shapes: time and memory over cells and voxels, and beside StarDist's own package.

    python benchmarks/star_decoder.py

Fields are made of labels as training's targets are, with noise, and come in slabs as a network's
come in tiles. Writes docs/star_decoder.md and .json. Without the package ``stardist`` its rows are
left out. About 16 minutes.
"""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import added_peak_bytes, fresh_python, measure
from numpy.typing import NDArray
from report import parser, table, write
from shapes_python import stardist_rays, stardist_version
from stacks import tissue

import cellrt
from cellrt.geometry import Shape
from cellrt.models.harmonicnet.targets import make_harmonic_targets
from cellrt.models.stardist3d.targets import make_star_targets
from cellrt.runtime.decoding.base import Block, Outputs, TileFields
from cellrt.runtime.decoding.star.candidates import Proposals, StarFields
from cellrt.runtime.decoding.star.decoder import STAR, StarDecoder
from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.star.harmonics import coefficient_names
from cellrt.runtime.decoding.star.parameters import StarParameters
from cellrt.runtime.decoding.star.polyhedra import suppress_rays
from cellrt.runtime.decoding.star.rasterise import rasterise_rays
from cellrt.simulation import ImagingParameters, NucleiParameters, simulate_nuclei

SHAPE, TARGET_CELLS, TARGET_SECONDS = (256, 512, 512), 10_000, 5.0
SMALLER = (64, 128, 128)
# The volume is made of blocks, 2 along each axis, with the same cells.
BLOCKS = 2
# Nuclei of the size that models know.
NUCLEI_DIAMETER, NUCLEI_FILLING = 16.0, 0.3
# Of cells that fill the volume.
TISSUES = (10_200, 100_000)
STRIDE = 2
# Planes of the network's output that come at once; room around a block, which all cells end before.
SLAB, MARGIN = 16, 2
# Of the map, and of radii and coefficients as a share of the mean radius, as a network errs.
MAP_NOISE, SHAPE_NOISE = 0.02, 0.03
ORDER = 5
KINDS = ("harmonics", "36 rays", "96 rays")
CHANNELS = {
    "harmonics": ("distance", *coefficient_names(ORDER)),
    **{f"{n} rays": ("probability", *(f"radius_{i:03d}" for i in range(n))) for n in (36, 96)},
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--cells", type=int, nargs="*", default=TISSUES, help="of tissues")
    options.add_argument("--memory-of", metavar="FILE", help="of decoding this; for the script")
    arguments = options.parse_args()
    if arguments.memory_of:
        memory_of(arguments.memory_of)
        return
    rows = [
        row
        for scene, block in scenes(arguments.cells)
        for row in scaled(scene, block, arguments.repeats)
    ]
    beside = list(beside_stardist(arguments.repeats)) if stardist_version() else []
    write("star_decoder", "The decoder of shapes", _page(rows, beside), [*rows, *beside])


def decoder(kind: str, **parameters: Any) -> StarDecoder:
    """The decoder of a kind of shapes, on the CPU."""
    made = STAR.make(
        StarParameters(**parameters), Outputs(CHANNELS[kind], STRIDE), "it is measured"
    )
    assert isinstance(made, StarDecoder)
    return made


def kept_fields(block: NDArray[np.int32], kind: str, blocks: int) -> StarFields:
    """What a run keeps of the fields of a network that errs a little.

    Parameters
    ----------
    block : (z, y, x) array
        Labels.
    kind : str
    blocks : int
        Along each axis; every block has errors of its own.
    """
    made = decoder(kind)
    z, y, x = (blocks * n for n in block.shape)
    collector = made.collector((z, y, x))
    for start, fields in slabs(block, kind, blocks):
        _, z, y, x = fields.shape
        own = (slice(0, z), slice(0, y), slice(0, x))
        collector.add_tile(TileFields((start, 0, 0), own, fields))
        collector.add(Block(slice(start, start + z), slice(0, y), fields[:1]))
    return collector.kept()


def slabs(
    block: NDArray[np.int32], kind: str, blocks: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First plane and fields of each slab."""
    rng = np.random.default_rng(0)
    padded = np.pad(block, MARGIN)
    if kind == "harmonics":
        targets = make_harmonic_targets(padded, MARGIN, order=ORDER)
        radius = targets[1] / math.sqrt(4 * math.pi)
    else:
        targets = make_star_targets(padded, MARGIN, rays=len(CHANNELS[kind]) - 1)
        radius = targets[1:].mean(axis=0)
    for start in range(0, blocks * targets.shape[1], SLAB):
        first = start % targets.shape[1]
        planes = slice(first, first + SLAB)
        fields = np.tile(targets[:, planes], (1, 1, blocks, blocks))
        inside = np.flatnonzero(fields[0] > 0)
        error = SHAPE_NOISE * np.tile(radius[planes], (1, blocks, blocks)).flat[inside]
        for number, field in enumerate(fields):
            scale = error if number else MAP_NOISE
            field.flat[inside] += scale * rng.standard_normal(len(inside), np.float32)
        np.clip(fields[0], 0, 1, out=fields[0])
        yield start, fields


def whole(block: NDArray[np.int32], blocks: int) -> NDArray[np.int32]:
    """Labels of all blocks."""
    numbers = np.arange(blocks**3, dtype=np.int32).reshape((blocks,) * 3)
    for axis, length in enumerate(block.shape):
        numbers = numbers.repeat(length, axis)
    labels = np.tile(block, (blocks,) * 3)
    return np.where(labels > 0, labels + numbers * block.max(), 0).astype(np.int32)


def scenes(counts: Sequence[int]) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """What is decoded, a block of it: nuclei, and tissues of so many cells in all blocks."""
    z, y, x = (n // BLOCKS for n in SHAPE)
    yield "nuclei", nuclei_that_touch((z, y, x))
    for count in counts:
        yield "tissue", tissue((z, y, x), round(count / BLOCKS**3))


def nuclei_that_touch(shape: Shape) -> NDArray[np.int32]:
    """Labels of simulated nuclei."""
    return simulate_nuclei(
        shape,
        diameter_voxels=NUCLEI_DIAMETER,
        nuclei=NucleiParameters(arrangement="dense", filling=NUCLEI_FILLING),
        imaging=ImagingParameters(),
        seed=1,
    ).labels


def scaled(scene: str, block: NDArray[np.int32], repeats: int) -> Iterator[dict[str, Any]]:
    """Decode what every kind of network says of some cells."""
    labels = whole(block, BLOCKS)
    count = len(np.unique(labels)) - 1
    for kind in KINDS:
        kept = kept_fields(block, kind, BLOCKS)
        for fit in (False, True):
            made = decoder(kind, fit=fit)
            made.warm_up()
            wall, cpu, decoded = measure(lambda m=made, k=kept: m.decode(k, mode="fast"), repeats)
            scores = cellrt.evaluate(decoded.labels, labels)
            row = {
                "scene": scene,
                "kind": kind,
                "fit": fit,
                "shape": labels.shape,
                "cells": count,
                "proposals": len(kept.proposals),
                "thinned": kept.thinned,
                "found": int(decoded.labels.max()),
                "ap50": scores.at(0.5).average_precision,
                "mean_dice": scores.mean_dice,
                "wall_s": wall,
                "cpu_s": cpu,
                "kept_bytes": _kept_bytes(kept) / labels.size,
                "added_bytes": _memory(kept, kind, fit) / labels.size,
            }
            print(row, flush=True)
            yield row


def beside_stardist(repeats: int) -> Iterator[dict[str, Any]]:
    """The same proposals through cellrt's and the package's suppression and drawing."""
    from stardist.geometry import polyhedron_to_label
    from stardist.nms import non_maximum_suppression_3d_inds

    labels = nuclei_that_touch(SMALLER)
    most = StarParameters().max_overlap
    for kind in KINDS[1:]:
        found = kept_fields(labels, kind, 1).proposals
        found = found[found.by_score(StarParameters().threshold)]
        rays = len(CHANNELS[kind]) - 1
        theirs = stardist_rays(rays)
        vertices = directions(rays)
        places = STRIDE * found.places + (STRIDE - 1) // 2
        # The package knows whole voxels only.
        points = places.astype(np.float32)

        def package(found: Proposals = found, points: Any = points, rays: Any = theirs) -> Any:
            stay = np.flatnonzero(
                non_maximum_suppression_3d_inds(
                    found.values, points, rays, found.scores, thresh=most, verbose=False
                )
            )
            drawn = polyhedron_to_label(
                found.values[stay], points[stay], rays, SMALLER, prob=found.scores[stay],
                verbose=False,
            )  # fmt: skip
            return stay, drawn

        def ours(found: Proposals = found, places: Any = places, rays: Any = vertices) -> Any:
            stay = suppress_rays(places, 0.0, found.values, rays, most)
            shapes = places[stay].astype(np.float64), found.values[stay].astype(np.float64)
            return stay, rasterise_rays(SMALLER, (1.0,) * 3, *shapes, rays, first=True)

        wall, _, (stay, drawn) = measure(ours, repeats)
        their_wall, _, (their_stay, their_drawn) = measure(package, repeats)
        scores = cellrt.evaluate(drawn, their_drawn, thresholds=(0.98,))
        row = {
            "kind": kind,
            "shape": SMALLER,
            "proposals": len(found),
            "kept": len(stay),
            "kept_by_stardist": len(their_stay),
            "kept_by_both": len(np.intersect1d(stay, their_stay)),
            "same_at_98": scores.at(0.98).average_precision,
            "wall_s": wall,
            "stardist_wall_s": their_wall,
        }
        print(row, flush=True)
        yield row


def memory_of(path: str) -> None:
    """Print by how many bytes decoding stored fields raises the peak."""
    with open(path, "rb") as file:
        kind, fit, kept = pickle.load(file)
    made = decoder(kind, fit=fit)
    made.warm_up()
    print(added_peak_bytes(lambda: made.decode(kept, mode="fast")))


def _memory(kept: StarFields, kind: str, fit: bool) -> int:
    """The same, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.pickle"
        with path.open("wb") as file:
            pickle.dump((kind, fit, kept), file, protocol=5)
        return int(fresh_python(__file__, "--memory-of", str(path)).splitlines()[-1])


def _kept_bytes(kept: StarFields) -> int:
    found = kept.proposals
    parts = (kept.map, found.places, found.centres, found.scores, found.values)
    return sum(part.nbytes for part in parts)


def _page(rows: Sequence[dict[str, Any]], beside: Sequence[dict[str, Any]]) -> str:
    """docs/star_decoder.md."""
    slowest = {
        (scene, fit): max(
            row["wall_s"]
            for row in rows
            if (row["scene"], row["fit"]) == (scene, fit)
            and TARGET_CELLS <= row["cells"] < 2 * TARGET_CELLS
        )
        for scene in ("nuclei", "tissue")
        for fit in (False, True)
    }
    header = (
        "cells of", "shapes", "fit", "true", "proposals", "found", "AP50", "mean Dice", "wall, s",
        "CPU, s",
        "kept, bytes per voxel", "added while decoding",
    )  # fmt: skip
    cells = [
        [
            row["scene"],
            row["kind"],
            "yes" if row["fit"] else "no",
            *(f"{row[name]:,}" for name in ("cells", "proposals", "found")),
            *(f"{row[name]:.3f}" for name in ("ap50", "mean_dice")),
            *(f"{row[name]:.2f}" for name in ("wall_s", "cpu_s")),
            *(f"{row[name]:.1f}" for name in ("kept_bytes", "added_bytes")),
        ]
        for row in rows
    ]
    return f"""\
What a network would say of cells in {SHAPE} voxels, at every second of them: the
targets that it learns, with noise of {MAP_NOISE:g} on the map and of {SHAPE_NOISE:.0%} of the
mean radius on each radius or coefficient (order {ORDER}). Proposals: the shapes that its tiles
hand over. Wall: median, CPU: smallest sum over threads. Nuclei have {NUCLEI_DIAMETER:g} voxels, as
the bundled models see them, and touch; cells of a tissue fill the volume up to walls of two voxels.
*Fit*: cells grow over the map from half of their shapes, the default of the bundled models; else
shapes are drawn.

{table(header, cells)}
Target: {TARGET_CELLS:,} cells in at most {TARGET_SECONDS:g} s on 2 cores. The slowest kind takes
{slowest["nuclei", True]:.1f} s for nuclei with the fit, {slowest["nuclei", False]:.1f} s without;
for as many cells of a tissue {slowest["tissue", True]:.1f} and {slowest["tissue", False]:.1f} s.
Time goes by voxels of shapes and, for rays, by proposals, of which large cells have many; not by
pairs of cells. With the fit it goes by voxels of the map that are as high as where cells end, too,
which grow one after the other on one core. Borders then are those of the map, which the network
gives at every second voxel: cells of a tissue of 100,000, eleven voxels wide, are better
drawn by 96 rays alone.

Memory is that of decoding alone: its input, which is kept while the network runs, and what decoding
adds to the peak of the resident memory. That of whole runs is in [Memory and start](footprint.md).
{_beside(beside)}"""


def _beside(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    header = (
        "shapes", "proposals", "kept", "kept by stardist", "by both", "same cells at IoU 0.98",
        "wall, s", "wall of stardist, s", "times as fast",
    )  # fmt: skip
    cells = [
        [
            row["kind"],
            *(f"{row[name]:,}" for name in ("proposals", "kept", "kept_by_stardist")),
            f"{row['kept_by_both']:,}",
            f"{row['same_at_98']:.3f}",
            *(f"{row[name]:.2f}" for name in ("wall_s", "stardist_wall_s")),
            f"{row['stardist_wall_s'] / row['wall_s']:.1f}",
        ]
        for row in rows
    ]
    return f"""
## Beside StarDist's own package

The same proposals in {SMALLER} voxels through the suppression and drawing of both:
`stardist` {stardist_version()}, which is compiled C++ with threads, against cellrt's. Radii are as
the network says, centres are whole voxels. *Same cells*: average precision of cellrt's labels
against the package's at an IoU of 0.98.

{table(header, cells)}"""


if __name__ == "__main__":
    main()
