"""TASCAN against the paper's scheme with scikit-learn's DBSCAN, library parts, and how it scales.

    python benchmarks/tascan.py

Writes docs/tascan.md, docs/tascan.json and docs/tascan.png. All figures come from one run. Wall
time is the median; CPU time is the smallest sum over the process's threads, which other load on
the machine hardly touches.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import added_peak_bytes, first_use, fresh_python, measure
from report import parser, write
from scipy import ndimage
from skimage.segmentation import watershed
from stacks import PAPER_SHAPE, mirrored, paper_membranes, tissue
from tascan_page import HOLE_RADIUS, SMALLEST, Measured, page, plot

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.classes.baselines import (
    DbscanParameters,
    WatershedParameters,
    decode_dbscan,
    decode_watershed,
)
from cellrt.runtime.decoding.classes.class_map import (
    BACKGROUND,
    FOREGROUND,
    MEMBRANE,
    ClassMap,
    class_map_of,
)
from cellrt.runtime.decoding.classes.supervoxels import climb_to_maxima
from cellrt.runtime.decoding.classes.tascan import TascanParameters, decode_supervoxels
from cellrt.runtime.decoding.classes.touching import touching_areas
from cellrt.runtime.decoding.labels.distance import squared_distance

HOLES = 0.0005  # share of membrane voxels that are the centre of a hole
FIRST_USE = """\
from cellrt.runtime.decoding.classes.decoder import TASCAN
TASCAN.make(TASCAN.parameters(), None, "").warm_up()"""
DECODERS: dict[str, tuple[Callable[..., np.ndarray], Any]] = {
    "TASCAN": (decode_supervoxels, TascanParameters(min_radius=SMALLEST)),
    "watershed": (decode_watershed, WatershedParameters(min_radius=SMALLEST)),
    "DBSCAN": (decode_dbscan, DbscanParameters(min_radius=SMALLEST)),
}


def holed(classes: ClassMap, seed: int = 0) -> ClassMap:
    """Turn small balls around random membrane voxels into foreground, as a network would miss."""
    rng = np.random.default_rng(seed)
    membrane = np.argwhere(classes == MEMBRANE)
    centres = membrane[rng.choice(len(membrane), round(HOLES * len(membrane)), replace=False)]
    reach = int(HOLE_RADIUS)
    ball = np.argwhere(np.ones(3 * (2 * reach + 1,))) - reach
    ball = ball[(ball**2).sum(axis=1) <= HOLE_RADIUS**2]
    places = (centres[:, None] + ball).reshape(-1, 3)
    places = places[((places >= 0) & (places < classes.shape)).all(axis=1)]
    result = classes.copy()
    at = tuple(places.T)
    result[at] = np.where(classes[at] == BACKGROUND, BACKGROUND, FOREGROUND)
    return result


def compare(
    truth: np.ndarray, classes: ClassMap, repeats: int
) -> tuple[list[list[Any]], dict[str, Any]]:
    """One class map, three decoders."""
    rows, data = [], {}
    for name, (decode, parameters) in DECODERS.items():
        count = repeats if name == "TASCAN" else 1
        wall, cpu, labels = measure(lambda d=decode, p=parameters: d(classes, p), count)
        data[name] = {"wall_s": wall, "cpu_s": cpu}
        first = data["TASCAN"]
        scores = evaluate(labels, truth)
        row = [name, wall, cpu, wall / first["wall_s"], cpu / first["cpu_s"], int(labels.max())]
        row += [scores.mean_dice, scores.at(0.5).average_precision]
        rows.append([*row, scores.at(0.75).average_precision])
        print(rows[-1], flush=True)
    return rows, data


def parts(classes: ClassMap, repeats: int) -> list[list[Any]]:
    """Distance transform and watershed: this decoder's and the libraries'."""
    inside = classes == FOREGROUND
    squares = squared_distance(classes)
    heights = -squares
    work: dict[str, tuple[str, Callable[[], Any], int]] = {
        "cellrt distance": ("distance", lambda: squared_distance(classes), repeats),
        "scipy distance_transform_edt": (
            "distance",
            lambda: ndimage.distance_transform_edt(inside),
            1,
        ),
        "cellrt watershed": ("watershed", lambda: climb_to_maxima(squares.copy()), repeats),
        "scikit-image watershed": (
            "watershed",
            lambda: watershed(heights, connectivity=3, mask=inside),
            1,
        ),
    }
    if importlib.util.find_spec("edt"):
        import edt

        work["edt edtsq"] = (
            "distance",
            lambda: edt.edtsq(inside, parallel=os.cpu_count() or 1),
            repeats,
        )
    rows = []
    for name, (step, function, count) in work.items():
        wall, cpu, _ = measure(function, count)
        rows.append([step, name, wall, cpu])
        print(rows[-1], flush=True)
    return sorted(rows, key=lambda row: row[0])


def timed(name: str, classes: ClassMap, repeats: int) -> list[Any]:
    """One row of the scaling tables."""
    supervoxels = squared_distance(classes)
    count = climb_to_maxima(supervoxels)
    pairs = touching_areas(supervoxels, count).areas.size
    del supervoxels
    parameters = DECODERS["TASCAN"][1]
    wall, cpu, labels = measure(lambda: decode_supervoxels(classes, parameters), repeats)
    row = [name, count, pairs, int(labels.max()), wall, cpu, cpu / classes.size * 1e9]
    print(row, flush=True)
    return row


def scaling(classes: ClassMap, repeats: int, largest: int) -> dict[str, list[list[Any]]]:
    """Time over voxels at one density of cells, and over supervoxels in one volume."""
    shapes = [(n, n, n) for n in (64, 96, 128, 192, 256, 384, 512) if n <= largest]
    by_voxels = [timed(str(s), mirrored(classes, s), min(repeats, 3)) for s in shapes]
    by_count = []
    for count in (100, 1000, 10_000):
        labels = tissue((128, 256, 256), count)
        by_count.append(timed(f"{count} cells", np.where(labels > 0, 2, 1).astype(np.uint8), 3))
    noise = np.random.default_rng(0).random((128, 256, 256)) < 0.5
    by_count.append(timed("noise, half of it foreground", np.where(noise, 2, 1).astype("u1"), 3))
    return {"voxels": by_voxels, "supervoxels": by_count}


def added_memory(classes: ClassMap) -> dict[str, float]:
    """Peak bytes per voxel that decoding adds, each decoder in a fresh process."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.npy"
        for name in DECODERS:
            # DBSCAN's memory is that of its neighbour lists: a smaller map tells as much.
            np.save(path, classes if name == "TASCAN" else classes[:64, :128, :128])
            found[name] = float(fresh_python(__file__, "--memory-of", name, str(path)))
            print(name, found[name], flush=True)
    return found


def memory_of(name: str, path: str) -> None:
    """Print the bytes per voxel by which decoding a stored class map raises the peak."""
    decode, parameters = DECODERS[name]
    classes = np.load(path)
    decode(np.ascontiguousarray(classes[:32, :32, :32]), parameters)
    print(added_peak_bytes(lambda: decode(classes, parameters)) / classes.size)


def changed_by_flips(classes: ClassMap) -> list[int]:
    """Voxels that are in another cell when the map is flipped along z, y or x."""
    parameters = DECODERS["TASCAN"][1]
    expected = decode_supervoxels(classes, parameters).astype(np.int64)
    changed = []
    for axis in range(3):
        flipped = decode_supervoxels(np.ascontiguousarray(np.flip(classes, axis)), parameters)
        pairs, counts = np.unique((expected << 32) | np.flip(flipped, axis), return_counts=True)
        most = np.zeros(int(expected.max()) + 1, np.int64)
        np.maximum.at(most, pairs >> 32, counts)
        changed.append(int(classes.size - most.sum()))
    print("changed by flips", changed, flush=True)
    return changed


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--largest", type=int, default=512, help="edge of the largest volume")
    arguments.add_argument("--paper-shape", type=int, nargs=3, default=PAPER_SHAPE)
    arguments.add_argument(
        "--memory-of", nargs=2, metavar=("DECODER", "FILE"), help="of decoding this; for the script"
    )
    options = arguments.parse_args()
    if options.memory_of:
        memory_of(*options.memory_of)
        return
    compiled = first_use(FIRST_USE)
    stack = paper_membranes(tuple(options.paper_shape))
    perfect = class_map_of(stack.labels)
    classes = holed(perfect)
    membrane = perfect == MEMBRANE
    erased = np.count_nonzero(classes[membrane] != MEMBRANE) / np.count_nonzero(membrane)
    decode_supervoxels(classes[:32, :32, :32].copy(), TascanParameters())
    flips = changed_by_flips(classes)
    steps = parts(classes, options.repeats)
    scaled = scaling(classes, options.repeats, options.largest)
    memory = added_memory(classes)
    compared, seconds = compare(stack.labels, classes, options.repeats)
    found = Measured(
        erased=erased,
        flips=flips,
        compared=compared,
        seconds=seconds,
        parts=steps,
        scaling=scaled,
        memory=memory,
        first_use=compiled,
    )
    plot(found)
    data = {"compare": seconds, "parts": steps, "scaling": scaled, "memory": memory}
    write("tascan", "TASCAN", page(found), {**data, "first": compiled, "flips": flips})


if __name__ == "__main__":
    main()
