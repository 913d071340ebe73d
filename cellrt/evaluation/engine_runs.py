"""How fast each engine is on a stack, and whether it finds the same cells, as users run it."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import CellrtError, EngineError
from cellrt.evaluation.scores import evaluate
from cellrt.evaluation.tile_runs import TileTimes, engine_trouble, time_layers, time_tiles
from cellrt.geometry import Shape
from cellrt.runtime.image.reading import read_array
from cellrt.runtime.machine.nvml import management
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import EngineSpec, LayerTime
from cellrt.runtime.network.engines.ladder import engine_named, in_vain, ladder
from cellrt.wording import counted

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
    tile_zyx : (int, int, int)
        Shape of its tiles.
    agreement : float
        AP at IoU 0.75 between its cells and those of the first run, which is 1.
    peak_device_memory_bytes : int or None
        Of the whole process on its GPUs; None without one, and where the driver does not tell.
    reference : bool
        It is on the CPU, in fp32, to compare with; see `compare_engines`.
    tile : TileTimes or None
        The network alone; None where the engine failed there, which was told.
    layers : tuple of LayerTime
        In the order of execution; empty where nobody asked or the engine does not tell.
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
    tile_zyx: Shape
    agreement: float = 1.0
    peak_device_memory_bytes: int | None = None
    reference: bool = False
    tile: TileTimes | None = None
    layers: tuple[LayerTime, ...] = ()


class _Case(NamedTuple):
    """A model in an engine, in a precision that ``--precision`` takes."""

    model: ModelFile
    spec: EngineSpec
    precision: str

    def __str__(self) -> str:
        return f"{self.model.card.name} in {self.spec.name} with --precision {self.precision}"


def working_engines() -> list[str]:
    """Engines of the ladder that load here, best first; one that crashes does not."""
    return [spec.name for spec in ladder() if not engine_trouble(spec)]


def require_engines(names: Sequence[str]) -> None:
    """Refuse engines that do not load here.

    Raises
    ------
    UsageError
        There is none of that name.
    EngineError
        It does not load, and why.
    """
    for spec in [engine_named(name) for name in names]:
        if trouble := engine_trouble(spec):
            raise in_vain(spec, trouble)


def compare_engines(
    stack: Path,
    models: Sequence[ModelFile],
    engines: Sequence[str],
    *,
    precisions: Sequence[str] = (),
    reference_engine: str | None = None,
    arguments: Sequence[str] = (),
    repeats: int = 3,
    batch: int = 1,
    tile_runs: int = 100,
    layers: bool = False,
    report: Callable[[EngineRun], None] = lambda run: None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[EngineRun]:
    """Segment one stack with every model in every engine, each time in a process of its own.

    What the others' cells are compared with is the first model in the reference engine in fp32, or
    where there is none, the first that runs. An engine that fails or crashes ends nothing.

    Parameters
    ----------
    stack : Path
    models : sequence of ModelFile
        Variants of one model, or several models.
    engines : sequence of str
        See `working_engines`.
    precisions : sequence of str
        As ``--precision`` takes them; all that make a difference where there are none.
    reference_engine : str, optional
        One that works, on the CPU.
    arguments : sequence of str
        Further words for ``cellrt segment``, such as ``--voxel-size``.
    repeats : int
        Runs of each, of which the median counts; one more run before them fills caches, and one
        after them, where a GPU is used, is asked for its memory.
    batch, tile_runs : int
        See `time_tiles`.
    layers : bool
        Ask each engine how long its layers take.
    report : callable
        Told of each result as soon as it is there.
    tell : callable
        Told in one line what has not been measured, and why.

    Returns
    -------
    list of EngineRun

    Raises
    ------
    CellrtError
        Nothing that was asked for runs, or a run fails by what no other engine could do better,
        such as a stack that cannot be read.
    """
    asked = [
        _Case(model, spec, precision)
        for model in models
        for spec in map(engine_named, engines)
        for precision in precisions or _precisions(model, spec)
    ]
    cases = list(asked)
    if reference_engine is not None:
        first = _Case(models[0], engine_named(reference_engine), _exact(models[0]))
        cases = [first, *(case for case in asked if case != first)]
    runs: list[EngineRun] = []
    computed: dict[tuple[Path, str], set[str]] = {}
    truth: NDArray[np.generic] | None = None
    failed: CellrtError | None = None
    answered = False
    for case in cases:
        known = computed.setdefault((case.model.path, case.spec.name), set())
        try:
            words = ["--precision", case.precision, *arguments]
            measured = _measure(stack, case.model, case.spec, words, repeats, known)
        except CellrtError as error:
            if truth is None and error.exit_code in (2, 3):
                raise
            failed = failed or error
            tell(f"{case}: {error.message}")
            continue
        answered |= case in asked
        if measured is None:  # `auto` is one of the others here
            continue
        run, labels = measured
        known.add(run.precision)
        if truth is None:
            truth = labels
        scores = evaluate(labels, truth, thresholds=(IOU,)).at(IOU)
        run = replace(
            run,
            agreement=scores.average_precision,
            reference=reference_engine is not None and case == cases[0],
        )
        if tile_runs:
            run = _with_tile_times(run, case, batch, tile_runs, tell)
        if layers and run.tile is not None:
            run = _with_layers(run, case, tell)
        runs.append(run)
        report(run)
    if not answered:
        raise failed or EngineError("no engine works here; `cellrt doctor` says why")
    return runs


def _exact(model: ModelFile) -> str:
    """A file in another precision is computed as it says."""
    return "fp32" if model.card.precision == "fp32" else "auto"


def _precisions(model: ModelFile, spec: EngineSpec) -> list[str]:
    """Those that may differ in an engine."""
    if _exact(model) == "auto":
        return ["auto"]
    return ["fp32", *(["tf32"] if "tf32" in spec.own_precisions else []), "auto"]


def _with_tile_times(
    run: EngineRun, case: _Case, batch: int, tile_runs: int, tell: Callable[[str], None]
) -> EngineRun:
    try:
        times = time_tiles(
            case.spec, case.model, run.tile_zyx, case.precision, batch=batch, runs=tile_runs
        )
    except EngineError as error:
        tell(f"the tiles of {case}: {error.message}")
        return run
    if times.batch < batch:
        tell(f"batches of {batch} of {case}: it takes {counted(times.batch, 'tile')} at once")
    return replace(run, tile=times)


def _with_layers(run: EngineRun, case: _Case, tell: Callable[[str], None]) -> EngineRun:
    assert run.tile is not None
    try:
        found = time_layers(
            case.spec, case.model, run.tile.tile, case.precision, batch=run.tile.batch
        )
    except EngineError as error:
        tell(f"the layers of {case}: {error.message}")
        return run
    return replace(run, layers=tuple(found))


def _measure(
    stack: Path,
    model: ModelFile,
    spec: EngineSpec,
    words: Sequence[str],
    repeats: int,
    known: Container[str] = (),
) -> tuple[EngineRun, NDArray[np.generic]] | None:
    """Segment a stack; None where it is computed in a precision that is known already."""
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "run.labels.tif"
        command = [sys.executable, "-m", "cellrt", "segment", str(stack), "-o", str(labels)]
        command += ["--model", str(model.path), "--engine", spec.name, *words]
        command += ["--overwrite", "--quiet"]
        results: list[tuple[float, dict[str, Any]]] = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False
            )
            wall = time.perf_counter() - begin
            if done.returncode:
                error = CellrtError(_last_words(done.returncode, done.stderr))
                error.exit_code = done.returncode
                raise error
            results.append(
                (wall, json.loads((Path(folder) / "run.run.json").read_text(encoding="utf-8")))
            )
            if results[0][1]["engine"]["precision"] in known:
                return None
        cells = np.array(read_array(labels))  # the file goes with its folder
        device_memory = _peak_device_memory(command) if spec.needs == "nvidia" else None
    wall, record = sorted(results[1:], key=lambda result: result[0])[repeats // 2]
    inside = statistics.median(r["seconds"]["network_inside_engine"] for _, r in results[1:])
    grid = np.prod(record["scale"]["model_grid_zyx"])
    computed = float(grid * record["tiles"]["computed_voxels_per_voxel"])
    voxels = float(np.prod(record["input"]["shape_zyx"]))
    depth, height, width = record["tiles"]["shape_zyx"]
    run = EngineRun(
        model=record["model"]["name"],
        engine=spec.name,
        precision=record["engine"]["precision"],
        device=record["engine"]["device"],
        network_voxels_per_second=computed / max(inside, 1e-9),
        voxels_per_second=voxels / wall,
        seconds=record["seconds"],
        peak_memory_bytes=record["peak_memory_bytes"],
        cells=record["cells"],
        peak_device_memory_bytes=device_memory,
        tile_zyx=(depth, height, width),
    )
    return run, cells


def _last_words(code: int, printed: str) -> str:
    """Why a run ended: its own last line, which stands below warnings, or how it was ended."""
    lines = [line for line in printed.splitlines() if line.startswith("cellrt: ")]
    if lines and code > 0:
        return lines[-1].removeprefix("cellrt: ")
    # A library brought the process down.
    return f"it ended with {f'signal {-code}' if code < 0 else f'code {code}'}"


def _peak_device_memory(command: Sequence[str]) -> int | None:
    """Run a command, untimed because asking takes processor time, and watch its device memory."""
    peak: int | None = None
    with contextlib.suppress(OSError), management() as nvml, _started(command) as process:
        while process.poll() is None:
            held = nvml.memory_of(process.pid)
            if held is not None:
                peak = max(peak or 0, held)
            time.sleep(0.05)
    return peak


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
