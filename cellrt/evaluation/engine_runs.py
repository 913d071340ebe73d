"""How fast each engine is on a stack, and whether it finds the same cells, as users run it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import CellrtError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.image.reading import read_array
from cellrt.runtime.machine.hardware import gpu_memory_bytes
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.ladder import (
    EngineChoice,
    choose_engine,
    engine_named,
    ladder,
)

IOU = 0.75


@dataclass(frozen=True)
class EngineRun:
    """One model in one engine.

    Attributes
    ----------
    model, engine, precision, device : str
        Precision is what was computed in.
    network_voxels_per_second : float
        Voxels of tiles through the engine per second, without anything around it.
    voxels_per_second : float
        Voxels of the stack per second, from the start of the process to its end.
    seconds : dict
        Per stage, of the median run.
    peak_memory_bytes : int
        Of the whole process.
    cells : int
    agreement : float
        AP at IoU 0.75 between its cells and those of the first run, which is 1.
    peak_device_memory_bytes : int or None
        Of the whole process on its GPUs; None without one, and where the driver does not tell.
    build_seconds : float or None
        Of a TensorRT engine, when it was built; None for other engines.
    """

    model: str
    engine: str
    precision: str
    device: str
    network_voxels_per_second: float
    voxels_per_second: float
    seconds: dict[str, float]
    peak_memory_bytes: int
    cells: int
    agreement: float = 1.0
    peak_device_memory_bytes: int | None = None
    build_seconds: float | None = None


def working_engines() -> list[str]:
    """Engines of the ladder that load here, best first."""
    found = []
    for spec in ladder():
        try:
            choose_engine(spec.name)
        except CellrtError:
            continue
        found.append(spec.name)
    return found


def compare_engines(
    stack: Path,
    models: Sequence[ModelFile],
    engines: Sequence[str],
    *,
    arguments: Sequence[str] = (),
    repeats: int = 3,
    report: Callable[[EngineRun], None] = lambda run: None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[EngineRun]:
    """Segment one stack with every model in every engine, each time in a process of its own.

    The first model's first engine that runs, in fp32, is what the others' cells are compared with.

    Parameters
    ----------
    stack : Path
    models : sequence of ModelFile
        Variants of one model, or several models.
    engines : sequence of str
        See `working_engines`.
    arguments : sequence of str
        Further words for ``cellrt segment``, such as ``--voxel-size``.
    repeats : int
        Runs of each, of which the median counts; one more run before them fills caches, and one
        after them, where a GPU is used, is asked for its memory.
    report : callable
        Told of each result as soon as it is there.
    tell : callable
        Told in one line why an engine has no row.

    Returns
    -------
    list of EngineRun

    Raises
    ------
    CellrtError
        No engine runs, or a run fails by what no other engine could do better, such as a stack
        that cannot be read.
    """
    runs: list[EngineRun] = []
    reference: NDArray[np.generic] | None = None
    failed: CellrtError | None = None
    for model in models:
        for engine in engines:
            seen: set[str] = set()
            # A file in another precision is computed as it says.
            asked = ("fp32", "tf32", "auto") if model.card.precision == "fp32" else ("auto",)
            for precision in asked:
                if precision == "tf32" and precision not in engine_named(engine).own_precisions:
                    continue
                words = ["--precision", precision, *arguments]
                try:
                    run, labels = _measure(stack, model, choose_engine(engine), words, repeats)
                except CellrtError as error:
                    if reference is None and error.exit_code in (2, 3):
                        raise
                    failed = error
                    where = f"{model.card.name} in {engine} with --precision {precision}"
                    tell(f"{where}: {error.message}")
                    continue
                if run.precision in seen:  # `auto` is one of the others here
                    continue
                seen.add(run.precision)
                if reference is None:
                    reference = labels
                scores = evaluate(labels, reference, thresholds=(IOU,)).at(IOU)
                runs.append(replace(run, agreement=scores.average_precision))
                report(runs[-1])
    if failed is not None and not runs:
        raise failed
    return runs


def _measure(
    stack: Path, model: ModelFile, choice: EngineChoice, words: Sequence[str], repeats: int
) -> tuple[EngineRun, NDArray[np.generic]]:
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "run.labels.tif"
        command = [sys.executable, "-m", "cellrt", "segment", str(stack), "-o", str(labels)]
        command += ["--model", str(model.path), "--engine", choice.name, *words]
        command += ["--overwrite", "--quiet"]
        results: list[tuple[float, dict[str, Any]]] = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False
            )
            wall = time.perf_counter() - begin
            if done.returncode:
                words_of_it = done.stderr.strip().removeprefix("cellrt: ")
                if done.returncode < 0:  # a library brought the process down
                    words_of_it = f"it ended with signal {-done.returncode}"
                error = CellrtError(words_of_it)
                error.exit_code = done.returncode
                raise error
            results.append(
                (wall, json.loads((Path(folder) / "run.run.json").read_text(encoding="utf-8")))
            )
        cells = np.array(read_array(labels))  # the file goes with its folder
        on_gpu = choice.spec.needs == "nvidia"
        device_memory = _peak_device_memory(command) if on_gpu else None
    wall, record = sorted(results[1:], key=lambda result: result[0])[repeats // 2]
    inside = statistics.median(r["seconds"]["network_inside_engine"] for _, r in results[1:])
    grid = np.prod(record["scale"]["model_grid_zyx"])
    computed = float(grid * record["tiles"]["computed_voxels_per_voxel"])
    voxels = float(np.prod(record["input"]["shape_zyx"]))
    depth, height, width = record["tiles"]["shape_zyx"]
    asked = record["options"]["precision"]
    run = EngineRun(
        model=record["model"]["name"],
        engine=choice.name,
        precision=record["engine"]["precision"],
        device=record["engine"]["device"],
        network_voxels_per_second=computed / max(inside, 1e-9),
        voxels_per_second=voxels / wall,
        seconds=record["seconds"],
        peak_memory_bytes=record["peak_memory_bytes"],
        cells=record["cells"],
        peak_device_memory_bytes=device_memory,
        build_seconds=choice.build_seconds(model, (depth, height, width), asked),
    )
    return run, cells


def _peak_device_memory(command: Sequence[str]) -> int | None:
    """Run a command, untimed because asking takes processor time, and watch its device memory."""
    peak: int | None = None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            held = gpu_memory_bytes(process.pid)
            if held is not None:
                peak = max(peak or 0, held)
            time.sleep(0.05)
    return peak
