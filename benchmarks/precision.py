"""What fp16, bf16 and int8 cost in cells and gain in time, against the fp32 graph on a CPU.

    python benchmarks/precision.py

Every model in every precision, on the same tiles of 64³ voxels: simulated ones that no gate uses,
and real ones as `cellrt segment` cuts them. fp16 and bf16 are the graph with the output of every
layer rounded, which no engine does worse; int8 is the worse of OpenVINO and ONNX Runtime. Times are
processor time of one tile in OpenVINO, int8 and fp32 in turns; where the CPU computes in bf16 (AMX,
AVX-512 BF16), int8 and bf16 too. Writes docs/precision.md and .json.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import tifffile
from bundled import models_of_stacks
from report import DATA, parser, table, write

from cellrt.export.gate.compare import Parity, compare, onnxruntime_infer, openvino_infer
from cellrt.export.gate.tiles import Tile, simulated_tiles, stack_tiles
from cellrt.export.gate.tolerances import TOLERANCES
from cellrt.export.precision_variant import CALIBRATION_TILES, LAST_BLOCK
from cellrt.graph.fp16_weights import load_exact
from cellrt.graph.precision import convert, rounded
from cellrt.runtime.decoding.base import decode_fields
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.engines.openvino import has_bf16

CALIBRATION_SEED, JUDGING_SEED = 1000, 3000
SIMULATED_TILES = 8
REPEATS = 9


@dataclass(frozen=True)
class Candidate:
    """A graph to judge, what it is called, and by which precision's tolerance."""

    words: str
    precision: str
    graph: onnx.ModelProto
    judged: tuple[bytes, ...]


def candidates(model: ModelFile, exact: onnx.ModelProto) -> Iterator[Candidate]:
    """All precisions of a model."""
    for precision in ("fp16", "bf16"):
        emulated = rounded(exact, precision).SerializeToString()
        yield Candidate(precision, precision, convert(exact, precision), (emulated,))
    tiles = simulated_tiles(model.card, CALIBRATION_TILES, seed=CALIBRATION_SEED)
    for words, last in (
        ("int8, all inner layers", 0),
        (f"int8, last {LAST_BLOCK} layers in fp32", LAST_BLOCK),
    ):
        graph = convert(exact, "int8", calibration=tiles, exact_last=last)
        yield Candidate(words, "int8", graph, (graph.SerializeToString(),))


def real_tiles(model: ModelFile) -> list[Tile]:
    """Tiles of the real stacks there are for a model; some were trained on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if model.card.target == "nuclei":
            paths = sorted((DATA / "nuclei/embryos/images").glob("Emb0[4-8]_t451*"))
            with h5py.File(DATA / "nuclei/ovule_1135.h5") as file:
                paths.append(saved(folder / "ovule.tif", file["raw"][:], (0.284, 0.127)))
        else:
            with h5py.File(DATA / "membranes/plant_patch.h5") as file:
                patch = file["raw"][:]
            root = np.load(DATA / "membranes/lateral_root_raw.npz")
            paths = [
                saved(folder / "left.tif", patch[:, :, :140]),
                saved(folder / "right.tif", patch[:, :, 140:]),
                saved(folder / "root.tif", root["arr_0"][0, 0]),
            ]
        return stack_tiles(paths, model)


def saved(path: Path, image: Any, size_um: tuple[float, float] | None = None) -> Path:
    """Write a stack as ImageJ does, with voxel size (z, x) where it is known."""
    metadata: dict[str, Any] = {"axes": "ZYX"}
    resolution = None
    if size_um is not None:
        metadata |= {"spacing": size_um[0], "unit": "um"}
        resolution = (1 / size_um[1], 1 / size_um[1])
    tifffile.imwrite(path, image, imagej=True, metadata=metadata, resolution=resolution)
    return path


def judge(
    model: ModelFile, exact: onnx.ModelProto, candidate: Candidate, tiles: list[Tile]
) -> Parity:
    """Compare with fp32; of several engines the one that agrees least."""
    reference = onnxruntime_infer(exact.SerializeToString())
    decoder = decoder_for(model.card, keep_to_cpu="precision is what is compared")
    decode = partial(decode_fields, decoder=decoder, stride=model.card.output_stride)
    tolerance = TOLERANCES[candidate.precision]
    engines = []
    for serialised in candidate.judged:
        engines.append(("onnxruntime", onnxruntime_infer(serialised), tolerance))
        if candidate.precision == "int8":
            engines.append(("openvino", openvino_infer(serialised, "f32"), tolerance))
    results = compare(engines, tiles, [reference(tile) for tile in tiles], decode)
    return min(results, key=lambda result: result.instance_ap)


def gain(exact: onnx.ModelProto, graph: onnx.ModelProto, tile: Tile, rest: str) -> float:
    """Median of how many times less processor time a graph takes than the exact one, in turns.

    `rest` is what OpenVINO computes in where a graph says float32: ``"f32"`` or ``"bf16"``.
    """
    runs = [openvino_infer(g.SerializeToString(), rest) for g in (exact, graph)]
    ratios = []
    for _ in range(REPEATS + 1):
        spent = []
        for run in runs:
            begin = time.process_time()
            run(tile)
            spent.append(time.process_time() - begin)
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios[1:])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("models", nargs="*", default=models_of_stacks())
    rows, figures = [], []
    for name in arguments.parse_args().models:
        model = open_model(name)
        exact = load_exact(model.path)
        sets = {
            "simulated": simulated_tiles(model.card, SIMULATED_TILES, seed=JUDGING_SEED),
            "real": real_tiles(model),
        }
        for candidate in candidates(model, exact):
            megabytes = len(candidate.graph.SerializeToString()) / 1e6
            row: dict[str, Any] = {"model": name, "precision": candidate.words}
            row["megabytes"] = round(megabytes, 2)
            for kind, tiles in sets.items():
                parity = judge(model, exact, candidate, tiles)
                row[kind] = {
                    "mean_error": parity.mean_error,
                    "ap75": parity.instance_ap,
                    "cells": parity.cells,
                    "passes": not parity.problems,
                }
            if candidate.precision == "int8":
                tile = sets["simulated"][0]
                for rest in ("f32", "bf16") if has_bf16() else ("f32",):
                    row[f"times_faster_{rest}"] = gain(exact, candidate.graph, tile, rest)
            print(row, flush=True)
            figures.append(row)
            rows.append(
                [
                    name,
                    candidate.words,
                    f"{megabytes:.1f}",
                    *(text for kind in sets for text in _cells(row[kind])),
                    *(
                        f"{row[key]:.1f}" if key in row else ""
                        for key in ("times_faster_f32", "times_faster_bf16")
                    ),
                ]
            )
    header = [
        *("model", "precision", "MB", "mean error, simulated", "AP75, simulated"),
        *("mean error, real", "AP75, real", "times faster than fp32", "than bf16"),
    ]
    text = f"""\
Against fp32, on tiles of 64³ voxels. Simulated: {SIMULATED_TILES} tiles that calibrate nothing.
Real: for nuclei five mouse embryos and an ovule; for membranes two parts of a plant tissue and a
root, without a voxel size, taken as they are. Some of the real tiles were seen in training: this
compares precisions, it does not score models. AP is TP / (TP + FP + FN) at IoU 0.75 over the cells
of all tiles. The gate asks for 0.98 (fp16, bf16) or 0.95 (int8) on the tiles it is given.

{table(header, rows)}
fp16 and bf16: the graph with the output of every layer rounded; no time, as CPUs compute such files
in fp32. int8: the engine that agrees less, of OpenVINO and ONNX Runtime; processor time of one tile
in OpenVINO against the fp32 graph, medians of {REPEATS} pairs. "Than bf16": the same graphs, all
that is float32 in them computed in bf16{"" if has_bf16() else "; this CPU has none: not measured"}.
"""
    write("precision", "Precision", text, figures)


def _cells(result: dict[str, Any]) -> list[str]:
    passed = "" if result["passes"] else ", refused"
    return [f"{result['mean_error']:.4f}", f"{result['ap75']:.3f} ({result['cells']}){passed}"]


if __name__ == "__main__":
    main()
