"""The flow decoder against Cellpose, its two modes against each other, and how it scales.

    python benchmarks/decoder.py

Writes docs/decoder.md, docs/decoder.json and docs/decoder.png. All figures come from one run. Wall
time is the median; CPU time is the smallest sum over the process's threads, which other load on
the machine hardly touches. Without Cellpose its rows are left out.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellpose_dynamics import FACTOR, ITERATIONS, cellpose_masks, cellpose_version
from measuring import added_peak_bytes, first_use, fresh_python, measure
from report import DOCS, parser, table, write
from scipy import ndimage
from stacks import tissue

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_flows
from cellrt.runtime.decoding.flows.targets import heat_flow, tanh_flow

SHAPE, CELLS = (96, 256, 256), 300
PARAMETERS = FlowParameters(radius_range=(2.5, 100.0))
HEAT_PARAMETERS = FlowParameters(radius_range=(2.5, 100.0), target="heat")
FIRST_USE = """\
from cellrt.runtime.decoding.flows.decoder import FlowDecoder
from cellrt.runtime.decoding.flows.cells import FlowParameters
FlowDecoder(FlowParameters(wall_thickness=2.0)).warm_up()"""


def like_a_network(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tanh field and foreground, blurred by 1 voxel, damped to 0.8, with correlated noise 0.15."""
    rng = np.random.default_rng(seed)

    def grain() -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape, np.float32), 1.5)
        return noise / noise.std()

    flow = np.stack(
        [0.8 * ndimage.gaussian_filter(g, 1.0) + 0.15 * grain() for g in tanh_flow(labels)]
    )
    foreground = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.7) + 0.1 * grain()
    return flow.clip(-1, 1).astype(np.float16), foreground.clip(0, 1).astype(np.float16)


def compare(repeats: int, cellpose_repeats: int) -> tuple[str, dict[str, Any]]:
    """One field size, three fields, three decoders."""
    truth = tissue(SHAPE, CELLS)
    mask = (truth > 0).astype(np.float16)
    fields = {
        "tanh, perfect": (tanh_flow(truth).astype(np.float16), mask, PARAMETERS),
        "heat, perfect": (heat_flow(truth).astype(np.float16), mask, HEAT_PARAMETERS),
        "tanh, like a network's": (*like_a_network(truth), PARAMETERS),
    }
    version = cellpose_version()
    rows, data = [], {}
    for name, (flow, foreground, parameters) in fields.items():
        visible = np.where(foreground >= 0.5, truth, 0)
        results = {}
        fast = measure(lambda f=flow, m=foreground, p=parameters: decode_flows(f, m, p), repeats)
        results["fast"] = fast
        results["exact"] = measure(
            lambda f=flow, m=foreground, p=parameters: decode_flows(f, m, p, mode="exact"), 1
        )
        if version is not None:
            results[f"Cellpose {version}"] = measure(
                lambda f=flow, m=foreground: cellpose_masks(f, m, 0.5, torch.device("cpu")),
                cellpose_repeats,
            )
        for decoder, (wall, cpu, labels) in results.items():
            scores, exact = evaluate(labels, visible), evaluate(labels, results["exact"][2])
            row = [
                name,
                decoder,
                wall,
                cpu,
                wall / fast[0],
                cpu / fast[1],
                int(labels.max()),
                scores.at(0.5).average_precision,
                scores.at(0.9).average_precision,
                exact.at(0.9).average_precision,
            ]
            rows.append(row)
            print(row, flush=True)
        data[name] = {d: {"wall_s": w, "cpu_s": c} for d, (w, c, _) in results.items()}
    header = [
        "field",
        "decoder",
        "wall, s",
        "CPU, s",
        "wall / fast",
        "CPU / fast",
        "cells found",
        "AP50 truth",
        "AP90 truth",
        "AP90 exact mode",
    ]
    return table(header, rows), data


def scaling(repeats: int) -> tuple[str, str, dict[str, Any]]:
    """Time over voxels at one density of cells, and over cells in one volume."""
    density = CELLS / np.prod(SHAPE)
    by_voxels = []
    for shape in ((64, 64, 64), (64, 128, 128), (128, 128, 128), (96, 256, 256), (192, 256, 256)):
        count = max(2, round(density * np.prod(shape)))
        by_voxels.append(_timed(shape, count, repeats))
    by_cells = [_timed((128, 256, 256), count, repeats) for count in (100, 1000, 10_000)]
    header = ["shape", "true cells", "found", "wall, s", "CPU, s", "CPU, ns per voxel"]
    return (
        table(header, by_voxels),
        table(header, by_cells),
        {"voxels": by_voxels, "cells": by_cells},
    )


def _timed(shape: tuple[int, int, int], count: int, repeats: int) -> list[Any]:
    truth = tissue(shape, count)
    flow, mask = tanh_flow(truth).astype(np.float16), (truth > 0).astype(np.float16)
    wall, cpu, labels = measure(lambda: decode_flows(flow, mask, PARAMETERS), repeats)
    row = [str(shape), len(np.unique(truth)) - 1, int(labels.max()), wall, cpu]
    row.append(cpu / truth.size * 1e9)
    print(row, flush=True)
    return row


def memory() -> float:
    """Peak bytes per voxel that decoding adds, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        small = tissue((64, 128, 128), round(CELLS * 64 * 128**2 / np.prod(SHAPE)))
        truth = np.tile(small, (3, 2, 2))
        path = Path(folder) / "field.npz"
        np.savez(path, flow=tanh_flow(truth).astype(np.float16), mask=(truth > 0))
        return float(fresh_python(__file__, "--memory-of", str(path)))


def memory_of(path: str) -> None:
    """Print the bytes per voxel by which decoding a stored field raises the peak."""
    with np.load(path) as stored:
        flow, mask = stored["flow"], stored["mask"].astype(np.float16)
    decode_flows(flow[:, :16, :64, :64], mask[:16, :64, :64], PARAMETERS)
    print(added_peak_bytes(lambda: decode_flows(flow, mask, PARAMETERS)) / mask.size)


def plot(compared: dict[str, Any], scaled: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    decoders = list(next(iter(compared.values())))
    for offset, decoder in enumerate(decoders):
        values = [times[decoder]["cpu_s"] for times in compared.values()]
        left.bar(np.arange(len(values)) + 0.27 * offset, values, 0.25, label=decoder)
    left.set_xticks(np.arange(len(compared)) + 0.27, list(compared))
    left.set(yscale="log", ylabel="CPU seconds", title=f"{SHAPE}, {CELLS} cells")
    left.set_ylim(top=5 * left.get_ylim()[1])  # room for the legend above the bars
    left.legend(ncols=3)
    voxels = [math.prod(map(int, row[0].strip("()").split(","))) / 1e6 for row in scaled["voxels"]]
    right.loglog(voxels, [row[4] for row in scaled["voxels"]], "o-", label="one density")
    for row in scaled["cells"]:
        right.loglog(128 * 256 * 256 / 1e6, row[4], "s", label=f"{row[1]} cells")
    right.set(xlabel="million voxels", ylabel="CPU seconds", title="fast mode")
    right.legend()
    figure.savefig(DOCS / "decoder.png", dpi=110)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--cellpose-repeats", type=int, default=3)
    arguments.add_argument("--memory-of", metavar="FILE", help="of decoding this; for the script")
    options = arguments.parse_args()
    if options.memory_of:
        memory_of(options.memory_of)
        return
    warm = np.ones((8, 8, 8), np.int32)
    for mode in ("fast", "exact"):
        decode_flows(tanh_flow(warm).astype(np.float16), warm > 0, PARAMETERS, mode=mode)
    heat_flow(warm)
    compiled = first_use(FIRST_USE)
    added = memory()
    compared, raw = compare(options.repeats, options.cellpose_repeats)
    voxels, counts, scaled = scaling(options.repeats)
    plot(raw, scaled)
    text = f"""\
Measured in one run. Wall: median; CPU: smallest sum over threads (the machine may do other work
meanwhile, which lengthens wall time only).

## Against Cellpose, and the two modes

A tissue of {CELLS} cells, {SHAPE} voxels. Cellpose runs
`compute_masks(do_3D=True, niter={ITERATIONS})` on the same field times {FACTOR:g} (its networks are
trained so); the heat field is the one it is meant for. It applies no flow-error filter in 3D, this
decoder applies all of its filters.

{compared}
## Scaling

One density of cells (`fast`, perfect tanh field, float16 input):

{voxels}
One volume, more and more cells:

{counts}
Decoding adds {added:.1f} bytes per voxel to the peak of the resident memory; its input (8 bytes)
is not counted.

## First use

Compiling every kernel, once per machine: {compiled[0]:.1f} s wall, {compiled[1]:.1f} s CPU (it
overlaps the network).

![CPU time of the decoders, and over voxels and cells](decoder.png)
"""
    write(
        "decoder",
        "The flow decoder",
        text,
        {"compare": raw, "scaling": scaled, "memory": added, "first": compiled},
    )


if __name__ == "__main__":
    main()
