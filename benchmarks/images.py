"""Single images: one of 2048 x 2048 pixels from file to labels, and a plate of many in one run.

    python benchmarks/images.py

Writes docs/images.md. Images are those of 520 x 696 in the DSB 2018 set, alone and put beside each
other. Every run is a process of its own, as a user starts it; of single images the first one does
not count. Some images were trained on; that does not matter to time.

Images of a plate are computed several at a time, so that the seconds of their stages overlap: what
the records say of their networks, in sum, is more than the time that networks took of the run. So
the network is timed on its own as well, compiled for one image that has all cores, over as many
tiles as the run had, one after the other, with nothing in between. That is the harder measure.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from bundled import models_of_images
from first_run import run
from numpy.typing import NDArray
from report import DATA, parser, table, write

from cellrt.runtime.job import Options
from cellrt.runtime.model.file import open_model
from cellrt.runtime.preparation import load

EDGE, SHAPE = 2048, (520, 696)
MOST_SECONDS, MOST_GB = 4.0, 1.5
MOST_TIMES = 1.2
# Runs of the network for each shape of tiles.
TIMED = 15
WAYS: dict[str, tuple[str, ...]] = {
    "as it comes": (),
    "size known": ("--diameter", "30"),
    "size known, no preview": ("--diameter", "30", "--no-preview"),
}


def pieces() -> list[NDArray[Any]]:
    """The images of the set that have its most common large shape."""
    files = sorted((DATA / "cells2d" / "dsb2018" / "images").glob("*.tif"))
    found = [image for image in map(tifffile.imread, files) if image.shape == SHAPE]
    if not found:
        raise SystemExit(f"no images of {SHAPE} in {DATA}; the data are needed")
    return found


def mosaic(images: list[NDArray[Any]]) -> NDArray[Any]:
    """One image of EDGE x EDGE."""
    down, across = (-(-EDGE // n) for n in SHAPE)
    parts = list(islice(cycle(images), down * across))
    rows = [np.hstack(parts[i * across : (i + 1) * across]) for i in range(down)]
    whole: NDArray[Any] = np.vstack(rows)[:EDGE, :EDGE]
    return whole


def timed(words: list[str], cache: Path, repeats: int) -> tuple[float, float]:
    """Median seconds and largest peak in GB of a command."""
    run(words, cache)
    found = [run(words, cache) for _ in range(repeats)]
    return statistics.median(f[0] for f in found), max(f[2] for f in found) / 1e3


def records_of(folder: Path) -> list[dict[str, Any]]:
    """Records of all images of a folder."""
    files = sorted(folder.glob("*.run.json"))
    return [json.loads(record.read_text(encoding="utf-8")) for record in files]


def network_alone(model: str, records: list[dict[str, Any]], seconds: dict[Any, float]) -> float:
    """Seconds of the network for all tiles of some records; `seconds` has those of each shape."""
    tiles: Counter[tuple[int, ...]] = Counter()
    for record in records:
        tiles[tuple(record["tiles"]["shape_zyx"])] += record["tiles"]["count"]
    network = load(open_model(model), Options(), keep=1)
    for shape in set(tiles) - set(seconds):
        session = network.session(shape)
        image = np.random.default_rng(0).random((1, 1, *shape), np.float32)
        session.infer(image)
        taken = []
        for _ in range(TIMED):
            begin = time.perf_counter()
            session.infer(image)
            taken.append(time.perf_counter() - begin)
        seconds[shape] = statistics.median(taken)
    return sum(count * seconds[shape] for shape, count in tiles.items())


def main() -> None:
    """Measure and write the page."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--plate", type=int, default=500, help="images of the plate [500]")
    arguments = options.parse_args()
    singles, plates, figures = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder, plate = Path(name), Path(name) / "plate"
        plate.mkdir()
        images = pieces()
        tifffile.imwrite(folder / "large.tif", mosaic(images))
        for number, image in enumerate(islice(cycle(images), arguments.plate)):
            tifffile.imwrite(plate / f"{number:03}.tif", image)
        for model in models_of_images():
            alone: dict[Any, float] = {}
            for way, more in WAYS.items():
                words = ["segment", str(folder / "large.tif"), "-m", model, "--overwrite", "-q"]
                seconds, peak = timed([*words, *more], folder / "cache", arguments.repeats)
                singles.append((model, way, f"{seconds:.2f}", f"{peak:.2f}"))
                words = ["segment", str(plate), "-m", model, "--overwrite", "-q", *more]
                seconds, cpu, peak, _ = run(words, folder / "cache")
                records = records_of(plate)
                network = network_alone(model, records, alone)
                shown = (f"{seconds:.1f}", f"{cpu:.1f}")
                stages = {
                    name: sum(record["seconds"].get(name, 0.0) for record in records)
                    for name in records[0]["seconds"]
                }
                own = stages["network"]
                ratios = (f"{own:.1f}", f"{seconds / own:.2f}")
                ratios += (f"{network:.1f}", f"{seconds / network:.2f}")
                plates.append((model, way, *shown, *ratios, f"{peak / 1e3:.2f}"))
                figures.append(
                    {
                        "model": model,
                        "way": way,
                        "plate": seconds,
                        "cpu": cpu,
                        "alone": network,
                        "stages": stages,
                    }
                )
    text = f"""One image of {EDGE} x {
        EDGE
    } pixels, from file to labels, table and preview; aimed at are
{MOST_SECONDS:g} s and {MOST_GB:g} GB.

{table(("model", "how", "s", "peak GB"), singles)}
A plate of {arguments.plate} images of {SHAPE[0]} x {
        SHAPE[1]
    } pixels in one run, several at a time; aimed at is
{MOST_TIMES:g} times what their networks take: by the images' own records, of which some run beside
each other, and alone, for as many tiles one after the other on all cores. Seconds on the clock and
of the processors.

{
        table(
            (
                "model",
                "how",
                "run, s",
                "CPU s",
                "networks in the records, s",
                "times",
                "network alone, s",
                "times that",
                "peak GB",
            ),
            plates,
        )
    }"""
    write("images", "Single images", text, {"single": singles, "plates": figures})


if __name__ == "__main__":
    main()
