"""The figure of the box plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LOWEST = 0.3  # what is worse lies on the edge
COLOURS = {
    "Cellpose3D": "#0b6e4f",
    "Cellpose2D": "#7fb069",
    "HarmonicNet": "#1f6fb2",
    "StarDist": "#b2501f",
    "3DCellSeg": "#7b4fa3",
}
OTHERS = "#c8a15a"


def draw(settings: Mapping[str, Mapping[str, Sequence[NDArray[np.float64]]]], path: Path) -> None:
    """Draw the Dice of all cells as one box per method, with the mean of each stack on it.

    Parameters
    ----------
    settings : mapping of mapping
        By setting and method: the Dice of each cell, stack by stack.
    path : Path
        PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    lines = max(len(methods) for methods in settings.values())
    rows = -(-len(settings) // 2)
    size = (11, rows * (0.9 + 0.42 * lines) + 0.5)
    figure, axes = plt.subplots(rows, 2, figsize=size, layout="constrained", squeeze=False)
    for axis, (setting, methods) in zip(axes.flat, settings.items(), strict=False):
        names = list(methods)
        boxes = axis.boxplot(
            [np.clip(np.concatenate(methods[name]), LOWEST, 1) for name in names],
            vert=False,
            widths=0.62,
            patch_artist=True,
            flierprops={"marker": "o", "markersize": 2.5, "markeredgecolor": "#999999"},
            medianprops={"color": "black"},
        )
        for name, box in zip(names, boxes["boxes"], strict=True):
            box.set(facecolor=_colour(name), alpha=0.55)
        for line, name in enumerate(names, 1):
            means = [stack.mean() for stack in methods[name]]
            axis.scatter(
                means,
                [line] * len(means),
                color="white",
                edgecolor="black",
                marker="D",
                s=22,
                zorder=3,
            )
        axis.set_yticks(range(1, len(names) + 1), names)
        axis.invert_yaxis()
        axis.set_xlim(LOWEST - 0.01, 1.005)
        axis.set_title(setting, fontsize=10)
        axis.set_xlabel("Dice of a true cell with its best match")
        axis.grid(axis="x", color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(settings) :]:
        axis.set_visible(False)
    marks = [
        Line2D(
            [], [], color="black", marker="D", ls="", mfc="white", ms=5, label="mean of a stack"
        ),
        Line2D([], [], color="#999999", marker="o", ls="", mfc="none", ms=4, label="outlier"),
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _colour(method: str) -> str:
    if "watershed" in method:
        return OTHERS
    return next(colour for name, colour in COLOURS.items() if method.startswith(name))
