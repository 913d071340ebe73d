"""The figure of the accuracy benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANELS = (("mean_dice", "mean Dice"), ("ap50", "AP at IoU 0.5"))
COLOURS = {"model": "#0b6e4f", "baseline": "#c8a15a"}


def draw(rows: Sequence[dict[str, Any]], baseline: str, path: Path) -> None:
    """Draw model against baseline, one line per group of stacks.

    Parameters
    ----------
    rows : sequence of dict
        One per group and method.
    baseline : str
        Which method is the baseline.
    path : Path
        PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    groups = list(dict.fromkeys(row["group"] for row in rows if not row["smoke"]))
    height = 1.4 + 0.28 * len(groups)
    figure, axes = plt.subplots(1, 2, figsize=(9, height), sharey=True, layout="constrained")
    for axis, (metric, title) in zip(axes, PANELS, strict=True):
        for line, group in enumerate(groups):
            of_group = {row["method"] == baseline: row for row in rows if row["group"] == group}
            values = [row[metric] for row in of_group.values()]
            axis.plot([min(values), max(values)], [line, line], color="#cccccc", zorder=1)
            if True in of_group:
                axis.scatter(
                    of_group[True][metric], line, color=COLOURS["baseline"], marker="s", zorder=2
                )
            if False in of_group:
                unseen = of_group[False]["status"] == "unseen"
                axis.scatter(
                    of_group[False][metric],
                    line,
                    facecolor=COLOURS["model"] if unseen else "white",
                    edgecolor=COLOURS["model"],
                    zorder=3,
                )
        axis.set_xlim(-0.02, 1.02)
        axis.set_xlabel(title)
        axis.grid(axis="x", color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].invert_yaxis()
    marks = [
        Line2D([], [], color=COLOURS["model"], marker="o", ls="", label="cellrt, data unseen"),
        Line2D(
            [], [], color=COLOURS["model"], marker="o", ls="", mfc="white",
            label="cellrt, data used in training",
        ),
        Line2D([], [], color=COLOURS["baseline"], marker="s", ls="", label=baseline),
    ]  # fmt: skip
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
