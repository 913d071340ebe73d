"""The figure of the accuracy benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANELS = (("mean_dice", "mean Dice"), ("ap50", "AP at IoU 0.5"))
BASELINE_COLOUR = "#c8a15a"
# By what the model's name ends in.
MODEL_COLOURS = {
    "": "#0b6e4f",
    "-3dcellseg": "#7b4fa3",
    "2d": "#1f6fb2",
    "-stardist": "#d1495b",
    "-harmonicnet": "#e08d3c",
    "2d-harmonic": "#4db6ac",
}


def draw(rows: Sequence[dict[str, Any]], baseline: str, path: Path) -> None:
    """Draw models against baseline, one line per group of stacks.

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
            of_group = [row for row in rows if row["group"] == group]
            values = [row[metric] for row in of_group]
            axis.plot([min(values), max(values)], [line, line], color="#cccccc", zorder=1)
            for row in of_group:
                if row["method"] == baseline:
                    axis.scatter(row[metric], line, color=BASELINE_COLOUR, marker="s", zorder=2)
                    continue
                colour = model_colour(row["method"])
                face = colour if row["status"] == "unseen" else "white"
                axis.scatter(row[metric], line, facecolor=face, edgecolor=colour, zorder=3)
        axis.set_xlim(-0.02, 1.02)
        axis.set_xlabel(title)
        axis.grid(axis="x", color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].invert_yaxis()
    first, *others = MODEL_COLOURS
    others = [end for end in others if any(row["method"].endswith(end) for row in rows)]
    marks = [
        Line2D([], [], color=MODEL_COLOURS[first], marker="o", ls="", label="cellrt, data unseen"),
        Line2D(
            [], [], color=MODEL_COLOURS[first], marker="o", ls="", mfc="white",
            label="cellrt, data used in training",
        ),
        *(
            Line2D([], [], color=MODEL_COLOURS[end], marker="o", ls="", label=f"likewise, *{end}")
            for end in others
        ),
        Line2D([], [], color=BASELINE_COLOUR, marker="s", ls="", label=baseline),
    ]  # fmt: skip
    figure.legend(handles=marks, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def model_colour(method: str) -> str:
    """Colour of the model that a method's name ends in."""
    return next(colour for end, colour in reversed(MODEL_COLOURS.items()) if method.endswith(end))
