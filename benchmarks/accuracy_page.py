"""The page of the accuracy benchmark: docs/accuracy.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from accuracy_stacks import LabelledStack
from report import table
from watershed_baseline import MEMBRANES, NUCLEI

BALL_VOXELS = 33
# Embryos on which a decision was made.
NOT_BLIND = ("Emb04", "Emb09")
METRICS = ("mean_dice", "ap50", "ap75", "f1_50")
# Of single images instead of Dice and F1.
PLANAR_METRICS = ("ap50", "ap75", "coco", "sbd")
TITLES = {
    "mean_dice": "mean Dice",
    "ap50": "AP50",
    "ap75": "AP75",
    "f1_50": "F1 50",
    "coco": "COCO AP",
    "sbd": "SBD",
}
STATUS = {
    "seen": "trained on",
    "checked": "watched during training",
    "unknown": "not known",
    "unseen": "no",
}


def balls(everything: Sequence[LabelledStack]) -> str:
    """How many true cells of the embryos are balls that stand for a nucleus without an outline."""
    found: dict[str, tuple[int, int]] = {}
    for stack in everything:
        if stack.group.startswith("Emb"):
            sizes = np.unique(stack.load()[1], return_counts=True)[1][1:]
            before, cells = found.get(stack.group, (0, 0))
            found[stack.group] = (before + int((sizes == BALL_VOXELS).sum()), cells + sizes.size)
    parts = ", ".join(f"{found[group][0]} in {group}" for group in NOT_BLIND if group in found)
    ball, cells = (sum(pair[k] for pair in found.values()) for k in (0, 1))
    return f"{ball} of {cells} in the embryos, {parts}"


def document(rows: Sequence[dict[str, Any]], ball_words: str) -> str:
    """Return docs/accuracy.md."""
    single = {row["group"] for row in rows if row["sbd"] is not None}
    of_stacks = [row for row in rows if row["group"] not in single]
    of_images = [row for row in rows if row["group"] in single]
    settings = "\n".join(
        f"- {name}: {'logarithm, ' if s.logarithm else ''}Gaussian of {s.smoothing:g}, "
        f"background of {s.background:g}, distance "
        f"transform smoothed by {s.distance_smoothing:g}, one seed in a box of half edge "
        f"{s.seed_distance:g}, cells below {s.smallest:g} of the median volume dropped; lengths "
        "in median cell diameters"
        for name, s in (("nuclei", NUCLEI), ("membranes", MEMBRANES))
    )
    return f"""{_measured_at(rows)}{_table(of_stacks, METRICS)}
![Mean Dice and AP at IoU 0.5 of model and baseline](accuracy.png)

Mean Dice: best match of each true cell, averaged over the cells of a stack. AP50 and AP75:
TP/(TP+FP+FN) of one-to-one matches at IoU 0.5 and 0.75; F1 50 at IoU 0.5. A row with several stacks
gives the mean over them, and the sum of cells and seconds. Groups may have been measured in
different runs (`--only`): compare seconds within a group. Rows marked with * have sparse ground
truth: predicted cells that lie mostly on unlabelled voxels are left out (`--ignore-unlabelled`).
In plant_patch the label 1 is no cell but all small cells together and the whole slice z = 31; it is
taken as unlabelled, and that slice from its neighbours, except where the row says *as stored*.

Where a row says *trained on* or *watched during training*, the figure is no measure of accuracy.
The model is told the voxel size where the image's file states it, and nothing where it does not
(*estimated*); simulated stacks come with their cells' diameter.

Foreground thresholds were chosen with `benchmarks/threshold.py`, on stacks that this table does not
score as unseen. Not blind: how far small cells are enlarged (0.75 of the model's grid, one
alternative) was decided on {" and ".join(NOT_BLIND)}.

## Single images

{_table(of_images, PLANAR_METRICS)}
COCO AP: the mean over IoU 0.5 to 0.95; SBD: symmetric best Dice. `nuclei` sees images as stacks
of one slice; `nuclei2d` is the default there. Of DSB 2018 and tissue sections nothing is told.
Bacteria and worms are as `cellrt simulate` draws them, and come with their cells' diameter; the
baseline takes cells for bright and sees stained ones alone. Worms overlap: truth and result are
scored in layers (`--overlaps`). *A few*: about 30 in 520 x 696 pixels (6 % covered
instead of 20). Of as many in real images of that size (BBBC010) the paper of the embeddings
reports a COCO AP of 0.724, of networks that were given the true mask of all worms as their image.

## What the figures mean

Some ground truth cannot be met: balls of {BALL_VOXELS} voxels stand for nuclei that nobody could
outline ({ball_words}), and dim nuclei end where
the grey value falls below one number per stack. Of the 54 nuclei of ovule_1135, 17 are pieces that
the border cuts, less than a third of the median one. plant_patch x >= 140 is segmented with the
rest of the stack around it, whose labels were trained on, and scored in the held-back part alone,
on the cells that lie mostly in it; *cut out* sees nothing else. Single images that a model was
trained on tell what it has not learned, beside what nobody could.

The baseline is Gaussian smoothing, background subtraction where it helps, Otsu's threshold,
distance transform and seeded watershed, told the median diameter of the true cells and the
anisotropy, and its settings were chosen on some of these very stacks. Both are in its favour:

{settings}

Data: BBBC050 (Tokuoka et al. 2020, CC BY 3.0), go-nuclear, plant-seg and pytorch-3dunet (MIT),
StarDist (BSD-3), Data Science Bowl 2018 (CC0), Mahbod et al. 2021 (Apache-2.0), and
`cellrt.simulation` (simulated nuclei in the setting of Eschweiler et al.,
second point-spread function).
"""


def _table(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    header = (
        "stacks", "n", "method", "trained on it", "scale from", *(TITLES[m] for m in metrics),
        "cells found", "cells true", "seconds",
    )  # fmt: skip
    cells = [
        (
            row["group"]
            + (" (smoke test)" if row["smoke"] else "")
            + (" *" if row["sparse"] else ""),
            row["stacks"],
            row["method"],
            STATUS[row["status"]],
            row["scale"],
            *(f"{row[name]:.3f}" for name in metrics),
            row["predicted_cells"],
            row["true_cells"],
            f"{row['seconds']:.1f}",
        )
        for row in rows
    ]
    return table(header, cells)


def _measured_at(rows: Sequence[dict[str, Any]]) -> str:
    """Which groups were measured at which commit, where it is not the same for all."""
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        for commit in row["commits"]:
            groups[commit][row["group"]] = None
    if len(groups) < 2:
        return ""
    lines = "\n".join(f"- {commit}: {', '.join(found)}" for commit, found in groups.items())
    return f"Groups were measured at different commits:\n\n{lines}\n\n"
