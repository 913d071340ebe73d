"""What ``tascan.py`` measures, and the page and the plot that show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from report import DOCS, table
from stacks import PAPER_SHAPE

SMALLEST = 2.0
HOLE_RADIUS = 2.0

Rows = list[list[Any]]


@dataclass(frozen=True)
class Measured:
    """Everything that one run of ``tascan.py`` measured.

    Parameters
    ----------
    erased : float
        Share of the membrane voxels that the holes took.
    flips : list of int
        Voxels that change cells when the map is flipped along z, y or x.
    compared : list of list
        One row per decoder.
    seconds : dict of dict
        Wall and CPU seconds of each decoder; TASCAN first.
    parts : list of list
        One row per implementation of a step.
    scaling : dict of list
        Rows over voxels and over supervoxels.
    memory : dict of float
        Peak bytes per voxel that each decoder adds.
    first_use : (float, float)
        Wall and CPU seconds until all kernels are compiled.
    """

    erased: float
    flips: list[int]
    compared: Rows
    seconds: dict[str, dict[str, float]]
    parts: Rows
    scaling: dict[str, Rows]
    memory: dict[str, float]
    first_use: tuple[float, float]


def page(found: Measured) -> str:
    """docs/tascan.md."""
    by_voxels, by_count = found.scaling["voxels"], found.scaling["supervoxels"]
    first, per_voxel = (by_voxels[k][6] for k in (0, -1))
    wall, cpu = found.first_use
    flips = ", ".join(map(str, found.flips))
    header = ["", "supervoxels", "pairs", "cells", "wall, s", "CPU, s", "CPU, ns per voxel"]
    added = ", ".join(f"{name} {value:.1f}" for name, value in found.memory.items())
    compared = [
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
    return f"""\
Measured in one run. Wall: median; CPU: smallest sum over threads (the machine may do other
work meanwhile, which lengthens wall time only).

## Against DBSCAN and a seeded watershed

The class map of a simulated tissue, {PAPER_SHAPE} voxels, with holes of {HOLE_RADIUS:g} voxels'
radius in its membranes ({found.erased:.1%} of them erased), to labels. DBSCAN is the paper's
baseline: scikit-learn's over the coordinates of all foreground voxels (k-d tree, all cores), noise
given to the nearest cell. All three end in the same clean-up and drop cells below a radius of
{SMALLEST:g}.

{table(compared, found.compared)}
## Own kernels, and why

Distance transform and watershed of the same map, alone. scikit-image's flooding goes through one
queue of all voxels on one core; here every voxel points to its highest neighbour by itself, which
gives the same supervoxels but for ties.

{table(["step", "implementation", "wall, s", "CPU, s"], found.parts)}
## Scaling

The same map, repeated by mirroring to larger volumes:

{table(["shape", *header[1:]], by_voxels)}
From the smallest to the largest the cost goes from {first:.0f} to {per_voxel:.0f} ns of CPU time
per voxel. At the latter 10⁹ voxels would take {per_voxel:.0f} s of CPU time, half of that on two
free cores (extrapolated, not measured).

One volume of (128, 256, 256) voxels, more and more supervoxels:

{table(["map", *header[1:]], by_count)}
## Memory

Peak bytes per voxel that decoding adds to the class map, labels included: {added}. Whole runs:
[memory and start](footprint.md).

## First use

Compiling every kernel, once per machine: {wall:.1f} s wall, {cpu:.1f} s CPU (it
overlaps the network).

## What depends on the order of the axes

Supervoxels are found from distances alone, merging from counts alone, and leftovers go to the
nearest cell, the largest of equally near ones. What remains are voxels between equally high
neighbours with equal surroundings, such as the middle plane of a neck with an odd length: the
first in memory wins. Flipping the map above along z, y and x puts {flips} of
its {math.prod(PAPER_SHAPE) / 1e6:.1f} million voxels into another cell.

![Seconds of the decoders, and of TASCAN over voxels and supervoxels](tascan.png)
"""


def plot(found: Measured) -> None:
    """docs/tascan.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for offset, kind in ((-0.2, "wall_s"), (0.2, "cpu_s")):
        values = [times[kind] for times in found.seconds.values()]
        bars = left.bar(np.arange(len(values)) + offset, values, 0.38, label=kind[:-2])
        left.bar_label(bars, fmt="%.3g")
    left.set_xticks(np.arange(len(found.seconds)), list(found.seconds))
    left.set(yscale="log", ylabel="seconds", title=f"class map to labels, {PAPER_SHAPE}")
    left.set_ylim(top=4 * left.get_ylim()[1])  # room for the figures above the bars
    left.legend()
    rows = found.scaling["voxels"]
    voxels = [math.prod(map(int, row[0].strip("()").split(","))) / 1e6 for row in rows]
    right.loglog(voxels, [row[5] for row in rows], "o-", label="one density")
    for row in found.scaling["supervoxels"]:
        right.loglog(128 * 256 * 256 / 1e6, row[5], "s", label=f"{row[1]} supervoxels")
    right.set(xlabel="million voxels", ylabel="CPU seconds", title="TASCAN")
    right.legend()
    figure.savefig(DOCS / "tascan.png", dpi=110)
