"""What ``gpu.py`` measures, and the page that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from report import table
from stacks import MEMBRANE_DIAMETER

import cellrt
from cellrt.evaluation.engine_runs import IOU
from cellrt.export.gate.tolerances import TOLERANCES
from cellrt.runtime.network.engines.tensorrt.verify import TOLERANCE

AGREEMENT = TOLERANCES["fp16"].instances
NETWORK_TARGET, END_TO_END_TARGET, LARGE_TARGET_SECONDS, BUSY_TARGET = 2.0, 10.0, 5.0, 0.8
CHECKED = (72, 128, 128)

BASELINE = "PyTorch + MONAI + Cellpose"

Seconds = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Parameters
    ----------
    membranes, nuclei : (int, int, int)
        Stacks for the comparison with PyTorch and for the large run.
    tiles : int
        In one batch of the network alone.
    calls : int
        Of the network in each timing.
    repeats : int
        Timings of everything, of which the median counts.
    """

    membranes: tuple[int, int, int]
    nuclei: tuple[int, int, int]
    tiles: int
    calls: int
    repeats: int


@dataclass(frozen=True)
class Check:
    """One model file in one engine against fp32 on the CPU.

    Parameters
    ----------
    engine, model : str
    computes : str
        Precision, or what went wrong.
    agreement : float
        AP at IoU 0.75 between the cells of both.
    difference : float or None
        Largest mean absolute difference of a channel over one tile.
    cells : int
    build_seconds : float or None
        Of the TensorRT engine.
    """

    engine: str
    model: str
    computes: str
    agreement: float = 0.0
    difference: float | None = None
    cells: int = 0
    build_seconds: float | None = None

    @property
    def passes(self) -> bool:
        """The gate of `cellrt export` for cells, and that of new engines for fields."""
        # A difference that is not a number fails.
        return self.agreement >= AGREEMENT and (
            self.difference is not None and self.difference <= TOLERANCE
        )


@dataclass(frozen=True)
class Measured:
    """Everything that one run of ``gpu.py`` measured.

    Parameters
    ----------
    gpu : list of str
        Empty on the CPU.
    pytorch : str
        Version.
    sizes : Sizes
    checks : list of Check
    network_voxels_per_second : dict
        PyTorch in each precision first.
    end_to_end_seconds, large_stack_seconds : dict of dict
        Per pipeline on each grid, or engine, and stage; PyTorch first.
    """

    gpu: list[str]
    pytorch: str
    sizes: Sizes
    checks: list[Check]
    network_voxels_per_second: dict[str, float]
    end_to_end_seconds: Seconds
    large_stack_seconds: Seconds


def page(found: Measured) -> str:
    """docs/gpu.md."""
    sizes, rates = found.sizes, found.network_voxels_per_second
    runs, large = found.end_to_end_seconds, found.large_stack_seconds
    pytorch_rate = _fastest_pytorch(rates)
    network = [[name, rate / 1e6, rate / pytorch_rate] for name, rate in rates.items()]
    pipelines = [
        [
            name,
            *(s[stage] for stage in ("network", "cells", "total")),
            _fastest_baseline(runs, name) / s["total"],
            s["mean Dice"],
        ]
        for name, s in runs.items()
    ]
    stacks = [
        [name, s["network"], s["cells"], s["measure"], s["total"], f"{_busy(s):.0%}"]
        for name, s in large.items()
    ]
    measured = "measured" if found.gpu else "measured on a CPU"
    where = ", ".join(found.gpu) if found.gpu else "No GPU"
    return f"""{"" if found.gpu else NO_GPU}{where}; PyTorch {found.pytorch}, \
cellrt {cellrt.__version__}. Medians of {sizes.repeats} after one that does not
count. For each target, the figure of the engine that is best at it.

{table(["what", measured, "target on a GPU"], _targets(found))}
## The same cells

Each model in each engine against fp32 in OpenVINO on the CPU, on simulated stacks of
{_words(CHECKED)} voxels. AP at IoU {IOU:g} of the cells has to be at least {
        AGREEMENT:g}, the largest
mean difference of a channel over one tile at most {TOLERANCE:g}; else nothing is timed in
that run. Runs of some phases (`--only`) may have left checks and times of different runs here.

{checks_table(found.checks)}
## The network alone

Million voxels per second, {sizes.tiles} tile(s) of 64 x 96 x 96 at once, which already lie on the
device.

{table(["engine", "Mvoxel/s", "times PyTorch"], network)}
## From file to labels

{_words(sizes.membranes)} voxels of simulated membranes with cells of {
        MEMBRANE_DIAMETER:.0f} voxels; model
files in fp16; *times as fast* compares with PyTorch where it is fastest, on the same grid. On the
image's grid every voxel is computed; on the model's, cells were first brought to the size that the
network was trained for, as cellrt does by itself, and PyTorch is given the same. PyTorch's network
is loaded before the clock starts, cellrt's engine after. Seconds.

{
        table(
            ["pipeline", "network", "cells", "file to labels", "times as fast", "mean Dice"],
            pipelines,
        )
    }
## A large stack

{
        _words(sizes.nuclei)
    } voxels of simulated nuclei, all of them computed; model file in fp16. Seconds.
Busy: share of the network stage that the network itself takes; the rest is loading the engine,
reading tiles, copying and merging.

{table(["engine", "network", "cells", "measure", "file to labels", "busy"], stacks)}"""


NO_GPU = """\
**Nothing on this page was measured on a GPU: none was at hand.** The script ran on the CPU with
small stacks while other work used the same cores. The figures show that it runs from end to end.
They say nothing about a GPU, and too little is computed for them to say much about the CPU.

"""


def _targets(found: Measured) -> list[list[object]]:
    rates, runs = found.network_voxels_per_second, found.end_to_end_seconds
    own = [name for name in runs if name.startswith(next(iter(runs)).partition(":")[0])]
    ours = [name for name in own if BASELINE not in name]
    large = found.large_stack_seconds.values()
    shape = _words(found.sizes.nuclei)
    return [
        [
            "network, times PyTorch",
            max(rate for name, rate in rates.items() if not name.startswith("PyTorch"))
            / _fastest_pytorch(rates),
            f"{NETWORK_TARGET:g} or more",
        ],
        [
            f"file to labels on the image's grid, times {BASELINE}",
            max(_fastest_baseline(runs, name) / runs[name]["total"] for name in ours),
            f"{END_TO_END_TARGET:g} or more",
        ],
        [
            f"{shape} voxels of nuclei, seconds from file to labels",
            min(seconds["total"] for seconds in large),
            f"{LARGE_TARGET_SECONDS:g} or less for 512 x 512 x 512",
        ],
        [
            "share of the network stage that the network takes",
            f"{max(map(_busy, large)):.0%}",
            f"{BUSY_TARGET:.0%} or more",
        ],
    ]


def _fastest_pytorch(rates: dict[str, float]) -> float:
    return max(rate for name, rate in rates.items() if name.startswith("PyTorch"))


def _fastest_baseline(runs: Seconds, name: str) -> float:
    """Seconds of the fastest baseline on the same grid as a run."""
    grid = name.partition(":")[0]
    return min(s["total"] for n, s in runs.items() if n.startswith(f"{grid}: {BASELINE}"))


def checks_table(checks: list[Check]) -> str:
    """The table of all engines against the CPU."""
    return table(
        ["engine", "model", "computes", "AP", "mean difference", "cells", "engine built in, s"],
        [
            [
                check.engine,
                check.model,
                check.computes,
                f"{check.agreement:.3f}",
                "" if check.difference is None else f"{check.difference:.1g}",
                check.cells,
                "" if check.build_seconds is None else check.build_seconds,
            ]
            for check in checks
        ],
    )


def _busy(seconds: dict[str, float]) -> float:
    return seconds["network_inside_engine"] / seconds["network"]


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
