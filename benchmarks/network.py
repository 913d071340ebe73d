"""The network inside the engine against the machine's matrix-product rate, and what lies around it.

    python benchmarks/network.py

Writes docs/network.md. The floor: the network's multiplications over the rate of one large matrix
product, measured in the same run with the same precision.
"""

from __future__ import annotations

import math
import statistics
import time

import numpy as np
import torch
from report import parser, table, write
from torch.utils.flop_counter import FlopCounterMode

from cellrt.models.cellpose3d.network import Cellpose3D
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.model.card_parts import Normalisation
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.plan import make_plan

REPEATS = 5
SHAPE = (128, 256, 256)


def product_rate(dtype: torch.dtype, size: int = 4096) -> float:
    """Best rate of a square matrix product in floating-point operations per second."""
    a, b = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
    best = min(_seconds(lambda: a @ b) for _ in range(REPEATS))
    return 2 * size**3 / best


def operations_per_voxel(widths: tuple[int, ...]) -> float:
    """Floating-point operations of one forward pass per voxel."""
    network = Cellpose3D(widths).eval()
    image = torch.zeros(1, 1, 32, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / image.numel()


def main() -> None:
    parser(__doc__).parse_args()
    model = open_model("membranes")
    card = model.card
    operations = operations_per_voxel((16, 32, 64, 128))
    decoder = decoder_for(card)
    grid = make_plan(SHAPE, SHAPE, card, decoder, image_bytes=2 * math.prod(SHAPE)).grid
    rows = []
    session = choose_engine("openvino").load(model, grid.tile, "auto")
    dtype = torch.bfloat16 if session.precision == "bf16" else torch.float32
    rate = product_rate(dtype)
    tile = np.random.default_rng(0).random((1, 1, *grid.tile), dtype=np.float32)
    session.infer(tile)
    seconds = statistics.median(_seconds(lambda: session.infer(tile)) for _ in range(REPEATS))
    reached = operations * tile.size / seconds
    rows.append(
        [session.precision, f"{rate / 1e9:.0f}", f"{reached / 1e9:.0f}", f"{reached / rate:.0%}"]
    )
    rows[-1].append(f"{tile.size / seconds / 1e6:.2f}")

    volume = np.random.default_rng(1).integers(0, 4000, SHAPE).astype(np.uint16)
    around = []
    for _ in range(3):
        begin = time.perf_counter()
        image = prepare_image(volume, SHAPE, Normalisation())
        _, inside = network_fields(image, grid, session, decoder)
        around.append((time.perf_counter() - begin - inside) / inside)
    share = statistics.median(around)
    header = [
        "precision",
        "matrix product, GFLOP/s",
        "network in the engine, GFLOP/s",
        "share",
        "Mvoxel/s",
    ]
    text = f"""{choose_engine().detail}.

Predicted: {operations / 1e3:.0f} thousand operations per voxel at the machine's matrix-product rate
allow {rate / operations / 1e6:.2f} million voxels per second.

{table(header, rows)}
Target: at least 60 %.

Reading, normalising, tiling and merging a {SHAPE} volume of 16-bit voxels
({len(grid)} tiles of {grid.tile}) took **{share:.1%}** of the time inside the engine
(median of 3). Target: at most 10 %.
"""
    write("network", "Network", text, {"share_of_peak": reached / rate, "around": share})


def _seconds(work: object) -> float:
    begin = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
