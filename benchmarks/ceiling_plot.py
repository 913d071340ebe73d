"""The figure of the ceiling benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANELS = (("harmonics", "coefficients of a cell"), ("rays", "rays of a cell"))
PAPERS_CHOICE = 36


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw mean Dice against the numbers that describe a cell, one line per tissue.

    Parameters
    ----------
    rows : sequence of dict
        One per tissue, with the Dice by number in ``harmonics`` and ``rays``.
    path : Path
        PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharey=True, layout="constrained")
    for axis, (kind, title) in zip(axes, PANELS, strict=True):
        for row in rows:
            numbers = [int(number) for number in row[kind]]
            label = row["tissue"] if kind == "harmonics" else None
            axis.plot(numbers, list(row[kind].values()), marker=".", label=label)
        axis.axvline(PAPERS_CHOICE, color="#cccccc", zorder=0)
        axis.set_xscale("log", base=2)
        ticks = (4, 16, 36, 64, 144) if kind == "harmonics" else (16, 36, 64, 128, 256)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(title)
        axis.grid(color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean Dice")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
