"""The figure of the confidence benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from confidence import Row


def draw(rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw reliability of cells, and expected against true AP50 of stacks.

    Parameters
    ----------
    rows : mapping of str to sequence of Row
        By model.
    path : Path
        PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(rows), 2, figsize=(8, 3.6 * len(rows)), layout="constrained")
    for (name, found), (left, right) in zip(rows.items(), np.atleast_2d(axes), strict=True):
        own = [r for r in found if r.inside]
        confidence = np.concatenate([np.asarray(r.confidence, float) for r in own])
        hit = np.concatenate([np.asarray(r.right, float) for r in own])
        bins = np.minimum((confidence * 10).astype(int), 9)
        for number in np.unique(bins):
            at = bins == number
            left.scatter(
                confidence[at].mean(), hit[at].mean(), s=4 + 0.3 * at.sum() ** 0.7, color="#0b6e4f"
            )
        left.set(title=name, xlabel="confidence", ylabel="share of right cells")
        for inside, colour, label in ((True, "#0b6e4f", "its world"), (False, "#c8a15a", "others")):
            part = [r for r in found if r.inside == inside]
            right.scatter(
                [r.expected for r in part],
                [r.ap50 for r in part],
                9,
                colour,
                label=label,
            )
        right.set(xlabel="expected AP50", ylabel="true AP50")
        right.legend(frameon=False)
        for axis in (left, right):
            axis.plot([0, 1], [0, 1], color="#cccccc", zorder=0)
            axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
            axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
