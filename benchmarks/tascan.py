"""TASCAN against the paper's scheme with scikit-learn's DBSCAN, library parts, and how it scales.

    pip install -e '.[dbscan]' matplotlib
    pip install edt                      # optional: one more row
    python benchmarks/tascan.py

Writes docs/tascan.md, docs/tascan.json and docs/tascan.png. All figures come from one run. Wall
time is the median; CPU time is the smallest sum over the process's threads, which other load on
the machine hardly touches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from decoder import cells as voronoi_cells
from footprint import run as run_cellrt
from report import DOCS, machine, table, write
from scipy import ndimage
from skimage.segmentation import watershed

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.class_map import BACKGROUND, FOREGROUND, MEMBRANE, ClassMap, class_map_of
from cellrt.runtime.decoders import SupervoxelDecoder
from cellrt.runtime.decoders.class_map_baselines import (
    DbscanParameters,
    WatershedParameters,
    decode_dbscan,
    decode_watershed,
)
from cellrt.runtime.decoders.supervoxels import TascanParameters, decode_supervoxels
from cellrt.runtime.decoders.supervoxels_distance import squared_distance
from cellrt.runtime.decoders.supervoxels_merge import touching_areas
from cellrt.runtime.decoders.supervoxels_watershed import climb_to_maxima
from cellrt.runtime.model_file import bundled_models
from cellrt.runtime.plan import PROMISED_BYTES
from cellrt.simulation import MembraneParameters, simulate_membranes

SHAPE = (181, 331, 160)  # the stack of which the paper gives times
MODEL = "membranes-3dcellseg"
SMALLEST = 2.0
HOLES = 0.0005  # share of membrane voxels that are the centre of a hole
HOLE_RADIUS = 2.0
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


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median wall seconds, smallest CPU seconds, and the last result."""
    walls, cpus, result = [], [], None
    for _ in range(repeats):
        result = None
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), min(cpus), result


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


def grown(classes: ClassMap, shape: tuple[int, ...]) -> ClassMap:
    """Repeat a class map, mirrored, to a shape."""
    extra = [(0, max(0, n - m)) for n, m in zip(shape, classes.shape, strict=True)]
    padded = np.pad(classes, extra, mode="symmetric")
    return np.ascontiguousarray(padded[tuple(slice(n) for n in shape)])


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
    by_voxels = [timed(str(s), grown(classes, s), min(repeats, 3)) for s in shapes]
    by_count = []
    for count in (100, 1000, 10_000):
        labels = voronoi_cells((128, 256, 256), count)
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
            command = [sys.executable, __file__, "--memory-of", name, str(path)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name] = float(out)
            print(name, found[name], flush=True)
    return found


def memory_of(name: str, path: str) -> None:
    """Print the bytes per voxel by which decoding a stored class map raises the peak."""
    decode, parameters = DECODERS[name]
    classes = np.load(path)
    decode(np.ascontiguousarray(classes[:32, :32, :32]), parameters)
    # Reading the file has set a peak of its own: start anew (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_resident_bytes()
    decode(classes, parameters)
    print((_peak_resident_bytes() - before) / classes.size)


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def whole_run(repeats: int) -> list[list[Any]]:
    """`cellrt segment` with the bundled model: seconds and peak memory against the promise."""
    if MODEL not in bundled_models():
        return []
    image = simulate_membranes(SHAPE, membranes=MembraneParameters(), seed=1).image
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stack = Path(folder) / "stack.tif"
        for shape in (SHAPE, (256, 384, 384)):
            tiled = grown(image, shape)
            tifffile.imwrite(stack, tiled, imagej=False)
            words = ["segment", str(stack), "--model", MODEL, "--diameter", "24", "--json"]
            runs = [run_cellrt([*words, "--overwrite"]) for _ in range(min(repeats, 3))]
            result = json.loads(runs[-1][2].splitlines()[-1])
            seconds = statistics.median(run[0] for run in runs)
            peak = max(run[1] for run in runs)
            limit = SupervoxelDecoder.promised_bytes * tiled.size + PROMISED_BYTES
            cells = result["record"]["seconds"]["cells"]
            row = [str(shape), result["cells"], seconds, cells, peak / 1e6, limit / 1e6]
            rows.append(row)
            print(row, flush=True)
    return rows


def changed_by_flips(classes: ClassMap) -> list[int]:
    """Voxels that are in another cell when the map is flipped along z, y or x."""
    parameters = DECODERS["TASCAN"][1]
    expected = decode_supervoxels(classes, parameters).astype(np.int64)
    changed = []
    for axis in range(3):
        mirrored = decode_supervoxels(np.ascontiguousarray(np.flip(classes, axis)), parameters)
        pairs, counts = np.unique((expected << 32) | np.flip(mirrored, axis), return_counts=True)
        most = np.zeros(int(expected.max()) + 1, np.int64)
        np.maximum.at(most, pairs >> 32, counts)
        changed.append(int(classes.size - most.sum()))
    print("changed by flips", changed, flush=True)
    return changed


def first_use() -> tuple[float, float]:
    """Wall and CPU seconds until all kernels are compiled, with an empty cache."""
    code = (
        "import time; a, b = time.perf_counter(), time.process_time()\n"
        "from cellrt.runtime.decoders import SupervoxelDecoder\n"
        "from cellrt.runtime.decoders.supervoxels import TascanParameters\n"
        "SupervoxelDecoder(TascanParameters()).warm_up()\n"
        "print(time.perf_counter() - a, time.process_time() - b)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def plot(compared: dict[str, Any], scaled: dict[str, list[list[Any]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for offset, kind in ((-0.2, "wall_s"), (0.2, "cpu_s")):
        values = [times[kind] for times in compared.values()]
        bars = left.bar(np.arange(len(values)) + offset, values, 0.38, label=kind[:-2])
        left.bar_label(bars, fmt="%.3g")
    left.set_xticks(np.arange(len(compared)), list(compared))
    left.set(yscale="log", ylabel="seconds", title=f"class map to labels, {SHAPE}")
    left.set_ylim(top=4 * left.get_ylim()[1])  # room for the figures above the bars
    left.legend()
    voxels = [math.prod(map(int, row[0].strip("()").split(","))) for row in scaled["voxels"]]
    right.loglog(
        np.divide(voxels, 1e6), [row[5] for row in scaled["voxels"]], "o-", label="one density"
    )
    for row in scaled["supervoxels"]:
        right.loglog(128 * 256 * 256 / 1e6, row[5], "s", label=f"{row[1]} supervoxels")
    right.set(xlabel="million voxels", ylabel="CPU seconds", title="TASCAN")
    right.legend()
    figure.savefig(DOCS / "tascan.png", dpi=110)


def report(
    compared: list[list[Any]],
    steps: list[list[Any]],
    scaled: dict[str, list[list[Any]]],
    memory: dict[str, float],
    runs: list[list[Any]],
    compiled: tuple[float, float],
    erased: float,
    flips: list[int],
) -> str:
    """The page."""
    per_voxel = scaled["voxels"][-1][6]
    header = ["", "supervoxels", "pairs", "cells", "wall, s", "CPU, s", "CPU, ns per voxel"]
    added = ", ".join(f"{name} {value:.1f}" for name, value in memory.items())
    whole = (
        "`cellrt segment` with the bundled model, whole run, 16-bit stacks:\n\n"
        + table(
            ["stack", "cells", "seconds", "of these decoding", "peak MB", "8 B/voxel + 1 GB"], runs
        )
        if runs
        else ""
    )
    found = [
        "decoder",
        "wall, s",
        "CPU, s",
        "wall / TASCAN",
        "CPU / TASCAN",
        "cells",
        "mean Dice",
        "AP50",
        "AP75",
    ]
    return f"""# TASCAN

Measured by `benchmarks/tascan.py` in one run on {machine()}.
Wall: median; CPU: smallest sum over threads (the machine may do other work meanwhile, which
lengthens wall time only).

## Against DBSCAN and a seeded watershed

The class map of a simulated tissue, {SHAPE} voxels, with holes of {HOLE_RADIUS:g} voxels' radius in
its membranes ({erased:.1%} of them erased), to labels. DBSCAN is the paper's baseline:
scikit-learn's over the coordinates of all foreground voxels (k-d tree, all cores), noise given to
the nearest cell. All three end in the same clean-up and drop cells below a radius of {SMALLEST:g}.

{table(found, compared)}
## Own kernels, and why

Distance transform and watershed of the same map, alone. scikit-image's flooding goes through one
queue of all voxels on one core; here every voxel points to its highest neighbour by itself, which
gives the same supervoxels but for ties.

{table(["step", "implementation", "wall, s", "CPU, s"], steps)}
## Scaling

The same map, repeated by mirroring to larger volumes:

{table(["shape", *header[1:]], scaled["voxels"])}
The cost per voxel does not grow: at {per_voxel:.0f} ns of CPU time, 10⁹ voxels would take
{per_voxel:.0f} s of CPU time, half of that on two free cores (extrapolated, not measured).

One volume of (128, 256, 256) voxels, more and more supervoxels:

{table(["map", *header[1:]], scaled["supervoxels"])}
## Memory

Peak bytes per voxel that decoding adds to the class map, labels included: {added}.

{whole}
## First use

Compiling every kernel, once per machine: {compiled[0]:.1f} s wall, {compiled[1]:.1f} s CPU (it
overlaps the network).

## What depends on the order of the axes

Supervoxels are found from distances alone, merging from counts alone, and leftovers go to the
nearest cell, the largest of equally near ones. What remains are voxels between equally high
neighbours with equal surroundings, such as the middle plane of a neck with an odd length: the
first in memory wins. Flipping the map above along z, y and x puts {", ".join(map(str, flips))} of
its {math.prod(SHAPE) / 1e6:.1f} million voxels into another cell.

![Seconds of the decoders, and of TASCAN over voxels and supervoxels](tascan.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--largest", type=int, default=512, help="Edge of the largest volume.")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory_of(*options.memory_of)
        return
    compiled = first_use()
    truth = simulate_membranes(SHAPE, membranes=MembraneParameters(), seed=1).labels
    perfect = class_map_of(truth)
    classes = holed(perfect)
    membrane = perfect == MEMBRANE
    erased = np.count_nonzero(classes[membrane] != MEMBRANE) / np.count_nonzero(membrane)
    decode_supervoxels(classes[:32, :32, :32].copy(), TascanParameters())
    flips = changed_by_flips(classes)
    steps = parts(classes, options.repeats)
    scaled = scaling(classes, options.repeats, options.largest)
    memory = added_memory(classes)
    runs = whole_run(options.repeats)
    compared, raw = compare(truth, classes, options.repeats)
    plot(raw, scaled)
    text = report(compared, steps, scaled, memory, runs, compiled, erased, flips)
    data = {"compare": raw, "parts": steps, "scaling": scaled, "memory": memory, "runs": runs}
    write("tascan", text, {**data, "first": compiled, "flips": flips})


if __name__ == "__main__":
    main()
