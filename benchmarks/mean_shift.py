"""Mean shift over the embeddings of an image, against scikit-learn's. Writes docs/mean_shift.md.

    python benchmarks/mean_shift.py

The points are those of touching cells whose pixels lie at the means of harmonic guide functions,
blurred over a pixel as a network does at borders, with noise of each pixel its own. scikit-learn
gets the same points, bandwidth and seeds. Wall time is the median; CPU time is the smallest sum
over the process's threads, which other load on the machine hardly touches.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from measuring import added_peak_bytes, first_use, measure
from report import parser, table, write
from scipy import ndimage
from sklearn.cluster import MeanShift
from stacks import tissue

from cellrt.runtime.decoding.embedding.mean_shift import mean_shift, seeds_of

EDGE, DIMENSIONS, BANDWIDTH = 1024, 12, 0.5
PIXELS_PER_CELL = 1500  # about 44 across
HIGHEST = 1 / 120  # cycles per pixel; of faster waves the mean over a cell tells little
NOISES = (0.02, 0.05, 0.1)
FIRST_USE = f"""\
from cellrt.runtime.decoding.base import Outputs
from cellrt.runtime.decoding.embedding.decoder import EMBEDDING, embedding_outputs
outputs = Outputs(embedding_outputs({DIMENSIONS}))
EMBEDDING.make(EMBEDDING.parameters(), outputs, "").warm_up()"""


def embedded(edge: int, noise: float, seed: int = 0) -> tuple[np.ndarray, int]:
    """Embeddings (n, d) of an image's foreground, and the number of cells."""
    rng = np.random.default_rng(seed)
    labels = tissue((1, edge, edge), max(2, edge * edge // PIXELS_PER_CELL), seed)[0]
    y, x = np.indices(labels.shape)
    index = np.unique(labels)[1:]
    image = np.empty((edge, edge, DIMENSIONS), np.float32)
    for k in range(DIMENSIONS):
        fy, fx = rng.uniform(0, HIGHEST, 2)
        guide = np.sin(2 * np.pi * (fy * y + fx * x + rng.random()))
        mean = np.zeros(int(labels.max()) + 1)
        mean[index] = ndimage.mean(guide, labels, index)
        image[..., k] = ndimage.gaussian_filter(mean[labels], 1.0)
    points = image[labels > 0]
    return points + noise * rng.standard_normal(points.shape, np.float32), len(index)


def row(edge: int, noise: float, repeats: int, compared: bool) -> list[Any]:
    """Figures of one image."""
    points, cells = embedded(edge, noise)
    wall, cpu, (labels, centres) = measure(lambda: mean_shift(points, BANDWIDTH), repeats)
    seeds = seeds_of(points, BANDWIDTH, "means")
    found = [f"{edge} x {edge}", noise, len(points), cells, len(centres), len(seeds), wall, cpu]
    if not compared:
        return [*found, "", "", ""]
    begin, cpu_begin = time.perf_counter(), time.process_time()
    reference = MeanShift(bandwidth=BANDWIDTH, seeds=seeds).fit(points.astype(np.float64))
    taken, cpu_taken = time.perf_counter() - begin, time.process_time() - cpu_begin
    pairs = np.unique(np.stack([labels, reference.labels_]), axis=1, return_counts=True)
    most = np.zeros(len(centres), np.int64)
    np.maximum.at(most, pairs[0][0], pairs[1])
    return [*found, taken, cpu_taken / cpu, f"{1 - most.sum() / len(points):.2g}"]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--compared", type=int, default=256, help="largest edge for all noises")
    options = arguments.parse_args()
    mean_shift(embedded(64, 0.05)[0], BANDWIDTH)
    compiled = first_use(FIRST_USE)
    rows = []
    for edge in (256, EDGE):
        for noise in NOISES:
            compared = edge <= options.compared or noise == NOISES[0]
            rows.append(row(edge, noise, options.repeats, compared))
            print(rows[-1], flush=True)
    points = embedded(EDGE, NOISES[1])[0]
    added = added_peak_bytes(lambda: mean_shift(points, BANDWIDTH)) / len(points)
    header = [
        *("image", "noise", "points", "true cells", "clusters", "seeds", "wall, s", "CPU, s"),
        *("scikit-learn wall, s", "scikit-learn CPU / CPU", "points in another cluster"),
    ]
    text = f"""\
{DIMENSIONS} dimensions, bandwidth {BANDWIDTH}. Noise is the standard deviation in each dimension
and each pixel, in a space where the embeddings reach from -1 to 1. scikit-learn is asked where its
cell is not empty; with much noise it would take hours for the larger image.

{table(header, rows)}
Beside its input (48 bytes a point) mean shift adds {added:.0f} bytes a point to the peak of the
resident memory. Compiling, once per machine: {compiled[0]:.1f} s wall, {compiled[1]:.1f} s CPU.
"""
    write("mean_shift", "Mean shift", text, {"rows": rows, "memory": added, "first": compiled})


if __name__ == "__main__":
    main()
