"""cellrt on a GPU: the same cells as on the CPU, and how much faster than PyTorch.

On a machine with an NVIDIA GPU, in a fresh environment (`cellrt[train]` brings the onnxruntime for
CPUs, which onnxruntime-gpu has to replace)::

    pip install -e '.[train,precision,benchmarks,cuda,tensorrt-rtx]'
    pip install --no-deps cellpose
    pip uninstall --yes onnxruntime
    pip install --force-reinstall --no-deps onnxruntime-gpu
    python benchmarks/gpu.py

``pip install tensorrt`` adds the engine ``tensorrt``. Every engine that works is measured, or those
named with ``--engine``: TensorRT-RTX is for RTX cards, and not for an H100. One that fails or finds
other cells than the CPU ends the script with exit code 1 before anything is timed. With ``--cpu``,
and on a machine without a GPU, the same code runs on the CPU with small stacks, which shows that
the script works and nothing else. Writes docs/gpu.md.

A machine that is at hand for minutes runs ``--only`` some phases with ``--keep FOLDER``; the same
command with ``--only ''`` makes the page of what the folder holds, on any machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from gpu_page import BASELINE, CHECKED, Check, Measured, Sizes, checks_table, page
from pipelines import (
    forward,
    medians,
    network_of,
    planned_grid,
    precisions,
    run_cellrt,
    run_pytorch,
    walls_filled,
)
from report import figures, made_by, parser, write
from stacks import MEMBRANE_DIAMETER, MEMBRANES, membranes, mirrored

import cellrt
from cellrt.errors import CellrtError
from cellrt.evaluation.engine_runs import IOU, working_engines
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.machine.driver import nvidia_gpus
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.engines.gpu_session import LARGEST_BATCH, DeviceSession, SpreadSession
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.engines.tensorrt.cache import FOLDER_VARIABLE
from cellrt.simulation import ImagingParameters, NucleiParameters, simulate_nuclei

PHASES = ("check", "network", "large", "end")
ON_GPU = Sizes(MEMBRANES, (512, 512, 512), tiles=LARGEST_BATCH, calls=10, repeats=5)
ON_CPU = Sizes((48, 96, 96), (64, 128, 128), tiles=1, calls=1, repeats=3)


def check_engines(engines: list[str], pairs: list[tuple[ModelFile, ModelFile]]) -> list[Check]:
    """Compare every engine with the CPU, each model as it is and in fp16."""
    found = []
    for full, half in pairs:
        image = _checked_image(full)
        # The decoder drops doubtful cells, so diameter and grid have to be the same for all.
        settings: dict[str, Any] = {"diameter": full.card.diameter_voxels}
        labels = cellrt.segment(
            image, model=full.path, engine="openvino", precision="fp32", **settings
        ).labels
        tile = prepare_image(image, image.shape, full.card.normalisation).read(
            (0, 0, 0), full.card.tile
        )[None, None]
        fields = choose_engine("openvino").load(full, full.card.tile, "fp32").infer(tile)
        for engine in engines:
            for file in (full, half):
                asked = _asked(engine, file)
                try:
                    session = choose_engine(engine).load(file, full.card.tile, asked)
                    difference = np.abs(session.infer(tile) - fields).mean(axis=(0, 2, 3, 4)).max()
                    computes = session.precision
                    del session
                    result = cellrt.segment(
                        image, model=file.path, engine=engine, precision=asked, **settings
                    )
                except CellrtError as error:
                    found.append(Check(engine, file.path.stem, str(error)))
                    continue
                scores = cellrt.evaluate(result.labels, labels, thresholds=(IOU,)).at(IOU)
                found.append(
                    Check(
                        engine,
                        file.path.stem,
                        computes,
                        scores.average_precision,
                        float(difference),
                        len(result.table),
                        choose_engine(engine).build_seconds(file, full.card.tile, asked),
                    )
                )
    return found


def _checked_image(model: ModelFile) -> np.ndarray:
    if model.card.target == "membranes":
        return membranes(CHECKED).image
    # A typical stack: where half of what is found is doubtful, a last bit decides about cells.
    return simulate_nuclei(
        CHECKED,
        diameter_voxels=model.card.diameter_voxels,
        nuclei=NucleiParameters(),
        imaging=ImagingParameters(),
        seed=9,
    ).image


def network_rates(
    engines: list[str], files: tuple[ModelFile, ModelFile], device: torch.device, sizes: Sizes
) -> dict[str, float]:
    """Voxels per second of the network alone, on tiles that already lie on the device."""
    tile = files[0].card.tile
    tiles = np.random.default_rng(0).random((sizes.tiles, 1, *tile), dtype=np.float32)
    rates = {
        f"PyTorch, {precision}": tiles.size
        / _pytorch_seconds(files[0], tiles, device, precision, sizes)
        for precision in precisions(device)
    }
    torch.cuda.empty_cache()  # cellrt decides from the free memory how much to do at once
    for engine in engines:
        for file in files:
            session = choose_engine(engine).load(file, tile, _asked(engine, file))
            work, wait = _queue(session, tiles)
            rates[f"{engine}, {session.precision}, {file.path.stem}"] = tiles.size / _seconds(
                work, wait, sizes
            )
            del session, work, wait
    return rates


def _pytorch_seconds(
    model: ModelFile, tiles: np.ndarray, device: torch.device, precision: str, sizes: Sizes
) -> float:
    torch.backends.cudnn.benchmark = True
    network = network_of(model, device)
    batch = torch.from_numpy(tiles).to(device, memory_format=torch.channels_last_3d)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    return _seconds(lambda: forward(network, batch, precision), wait, sizes)


def _queue(session: Session, tiles: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What runs the network once, and what waits for it; one GPU where there are several."""
    if isinstance(session, SpreadSession):
        session = session.sessions[0]
    if not isinstance(session, DeviceSession):
        return lambda: session.infer(tiles), lambda: None
    session.gpu.activate()
    session.reserve(len(tiles), tiles.shape[2:])
    image = session.gpu.empty(tiles.shape, np.float32, session.stream)
    image.copy_to_device(tiles, stream=session.stream)
    shape = (
        len(tiles),
        session.output_channels,
        *(n // session.output_stride for n in tiles.shape[2:]),
    )
    fields = session.gpu.empty(shape, np.float32, session.stream)
    return lambda: session.enqueue(image, fields), session.stream.synchronize


def _seconds(work: Callable[[], Any], wait: Callable[[], Any], sizes: Sizes) -> float:
    """Median seconds of one call, after a timing that does not count."""
    found = []
    for _ in range(sizes.repeats + 1):
        begin = time.perf_counter()
        for _ in range(sizes.calls):
            work()
        wait()
        found.append((time.perf_counter() - begin) / sizes.calls)
    return statistics.median(found[1:])


def end_to_end(
    engines: list[str], files: tuple[ModelFile, ModelFile], device: torch.device, sizes: Sizes
) -> dict[str, dict[str, float]]:
    """Seconds per stage from a membrane stack's file to a label file, and the mean Dice."""
    full, half = files
    stack = membranes(sizes.membranes)
    network = network_of(full, device)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "stack.tif", Path(folder) / "labels.tif"
        tifffile.imwrite(path, stack.image, imagej=True, metadata={"axes": "ZYX"})
        for words, diameter in (
            ("the image's grid", full.card.diameter_voxels),
            ("the model's grid", MEMBRANE_DIAMETER),
        ):
            grid = planned_grid(path, full.path, diameter)
            runs: dict[str, Callable[[], dict[str, float]]] = {
                f"{BASELINE}, {precision}": lambda p=precision, g=grid: run_pytorch(
                    path, out, network, full.card, g, device, precision=p
                )
                for precision in precisions(device)
            }
            for engine in engines:
                runs[f"cellrt, {engine}"] = lambda e=engine, d=diameter: run_cellrt(
                    path, out, model=half.path, diameter=d, engine=e
                )
            for name, run in runs.items():
                seconds = medians([run() for _ in range(sizes.repeats + 1)][1:])
                labels = tifffile.imread(out)
                if name.startswith(BASELINE):
                    labels = walls_filled(labels, full.card, grid)
                dice = cellrt.evaluate(labels, stack.labels).mean_dice
                found[f"{words}: {name}"] = {**seconds, "mean Dice": dice}
    return found


def large_stack(engines: list[str], half: ModelFile, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Seconds per stage from a large stack of nuclei to a label file."""
    diameter = half.card.diameter_voxels
    base = simulate_nuclei((64, 128, 128), diameter_voxels=diameter, seed=5)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "stack.tif", Path(folder) / "labels.tif"
        tifffile.imwrite(path, mirrored(base.image, sizes.nuclei))
        for engine in engines:
            runs = [
                run_cellrt(path, out, model=half.path, diameter=diameter, engine=engine)
                for _ in range(sizes.repeats + 1)
            ]
            found[engine] = medians(runs[1:])
    return found


def models() -> list[tuple[ModelFile, ModelFile]]:
    """Each model as it is, and in fp16."""
    found = []
    for model in map(open_model, ("nuclei", "membranes")):
        half = model.variant("fp16")
        assert half is not None
        found.append((model, half))
    return found


def _asked(engine: str, file: ModelFile) -> str:
    """The precision in which an engine takes this file, and not the one in fp16 beside it."""
    spec = choose_engine(engine).spec
    if not spec.needs:
        return "fp32"  # on CPUs with bf16 "auto" is that, which no file is to blame for
    has_tf32 = "tf32" in spec.own_precisions
    return "tf32" if has_tf32 and file.card.precision == "fp32" else "auto"


def measure(
    phase: str,
    engines: list[str],
    pairs: list[tuple[ModelFile, ModelFile]],
    device: torch.device,
    sizes: Sizes,
) -> Any:
    """The figures of one phase, as JSON holds them."""
    if phase == "check":
        checks = check_engines(engines, pairs)
        print(checks_table(checks))
        return [asdict(check) for check in checks]
    if phase == "network":
        return network_rates(engines, pairs[1], device, sizes)
    if phase == "end":
        return end_to_end(engines, pairs[1], device, sizes)
    return large_stack(engines, pairs[0][1], sizes)


def refuse(checks: list[dict[str, Any]]) -> None:
    """End where an engine fails or finds other cells than the CPU."""
    if not all(Check(**check).passes for check in checks):
        sys.exit(
            "an engine fails or computes something else than the CPU; nothing was timed; "
            "name the others with --engine to leave it out"
        )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--cpu", action="store_true", help="run on the CPU, with small stacks")
    arguments.add_argument("--engine", action="append", help="engine to measure [all]; repeatable")
    arguments.add_argument("--only", default=",".join(PHASES), help=f"of {', '.join(PHASES)} [all]")
    arguments.add_argument("--repeats", type=int, help="timings of which the median counts")
    arguments.add_argument(
        "--keep",
        type=Path,
        help="folder for each phase's figures, written when it ends",
    )
    options = arguments.parse_args()
    gpu = torch.cuda.is_available() and not options.cpu
    if not gpu and not options.keep and (figures("gpu") or {}).get("gpu"):
        print("docs/gpu.md was measured on a GPU and stays as it is")
        return
    sizes = ON_GPU if gpu else ON_CPU
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [phase for phase in PHASES if phase in options.only.split(",")]
        if wanted:
            needs = "nvidia" if gpu else ""
            engines = [n for n in working_engines() if choose_engine(n).spec.needs == needs]
            engines = [name for name in engines if name in (options.engine or engines)]
            if not engines or len(engines) < len(options.engine or ()):
                sys.exit("no engine, or not every one, works on this device; run `cellrt doctor`")
            built = stack.enter_context(tempfile.TemporaryDirectory())
            os.environ[FOLDER_VARIABLE] = built  # none that was built before
            pairs = models()
        device = torch.device("cuda" if gpu else "cpu")
        for phase in wanted:
            found = measure(phase, engines, pairs, device, sizes)
            about = {
                "gpu": [str(found) for found in nvidia_gpus()[0]] if gpu else [],
                "pytorch": torch.__version__,
                "sizes": asdict(sizes),
                "made_by": made_by(),
            }
            (folder / f"{phase}.json").write_text(
                json.dumps({"about": about, "figures": found}, indent=1), encoding="utf-8"
            )
            if phase == "check":
                refuse(found)
        phases = {
            phase: json.loads((folder / f"{phase}.json").read_text(encoding="utf-8"))
            for phase in PHASES
            if (folder / f"{phase}.json").exists()
        }
    if len(phases) < len(PHASES):
        print(f"no page yet; missing: {', '.join(p for p in PHASES if p not in phases)}")
        return
    about = phases["end"]["about"]
    kept = {phase: phases[phase]["figures"] for phase in PHASES}
    measured = Measured(
        gpu=about["gpu"],
        pytorch=about["pytorch"],
        sizes=Sizes(**about["sizes"]),
        checks=[Check(**check) for check in kept["check"]],
        network_voxels_per_second=kept["network"],
        end_to_end_seconds=kept["end"],
        large_stack_seconds=kept["large"],
    )
    write("gpu", "On a GPU", page(measured), asdict(measured), about["made_by"])


if __name__ == "__main__":
    main()
