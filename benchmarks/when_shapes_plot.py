"""The figure of where shapes are better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STYLES = {
    "Cellpose3D": ("#0b6e4f", "-", "o"),
    "HarmonicNet": ("#1f6fb2", "-", "s"),
    "HarmonicNet, fit": ("#1f6fb2", "--", "s"),
    "StarDist": ("#b2501f", "-", "^"),
    "StarDist, fit": ("#b2501f", "--", "^"),
}


def draw(sweeps: Sequence[Any], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw AP at IoU 0.5 over the levels of each sweep, one line for each method.

    Parameters
    ----------
    sweeps : sequence of Sweep
    rows : sequence of mapping
        With ``group``, ``level``, ``method`` and ``ap50``.
    path : Path
        PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = -(-len(sweeps) // 4)
    figure, axes = plt.subplots(
        lines, 4, figsize=(13, 3.1 * lines + 0.4), layout="constrained", sharey=True, squeeze=False
    )
    for axis, sweep in zip(axes.flat, sweeps, strict=False):
        for method, (colour, line, marker) in STYLES.items():
            found = {
                row["level"]: row["ap50"]
                for row in rows
                if row["group"] == sweep.title and row["method"] == method
            }
            # Levels side by side: they are not evenly apart.
            axis.plot(
                range(len(sweep.levels)), [found[level] for level in sweep.levels],
                line, color=colour, marker=marker, markersize=4, label=method,
                markerfacecolor="white" if line == "--" else colour,
            )  # fmt: skip
        axis.set_xticks(range(len(sweep.levels)), [f"{level:g}" for level in sweep.levels])
        axis.set_title(sweep.title, fontsize=10)
        axis.set_xlabel(sweep.axis)
        axis.grid(color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("AP at IoU 0.5")
    axes[0, 0].set_ylim(0.2, 1.0)
    for axis in axes.flat[len(sweeps) :]:
        axis.set_visible(False)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
