"""How the settings of the baseline of `accuracy.py` were found: `accuracy.py --tune nuclei`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from accuracy_stacks import LabelledStack, median_diameter
from watershed_baseline import (
    MEMBRANES,
    NUCLEI,
    WatershedSettings,
    segment_membranes,
    segment_nuclei,
)

from cellrt.evaluation import evaluate

# Values tried, one setting after the other, each with the best of those before it.
SEARCH: dict[str, dict[str, tuple[Any, ...]]] = {
    "nuclei": {
        "smoothing": (0.05, 0.1, 0.15),
        "seed_distance": (0.25, 0.35, 0.5),
        "background": (0.0, 1.0),
        "distance_smoothing": (0.05, 0.1),
        "smallest": (0.03, 0.1, 0.2),
        "logarithm": (False, True),
    },
    "membranes": {
        "background": (0.0, 0.25, 0.5, 1.0),
        "smoothing": (0.03, 0.06, 0.1),
        "seed_distance": (0.2, 0.3, 0.45),
        "distance_smoothing": (0.05, 0.1),
        "smallest": (0.03, 0.1, 0.2),
        "logarithm": (False, True),
    },
}


def tune(model: str, chosen: Sequence[LabelledStack]) -> None:
    """Search the baseline's settings for the highest mean Dice + AP50, one after the other."""
    real = [s for s in chosen if s.model == model and not s.smoke and s.name != "paper nuclei"]
    # Of plant_patch its two parts, cut out; not the same voxels twice.
    real = [stack for stack in real if len(stack.files) == 0 or stack.scored[-1] == slice(None)]
    # One stack of each group; of the embryos every third, at different times.
    groups = sorted({stack.group for stack in real})
    members = [[stack for stack in real if stack.group == group] for group in groups]
    picked = [group[number % len(group)] for number, group in enumerate(members)]
    if model == "membranes":
        picked += [stack for stack in members[-1] if stack.anisotropy > 1][:1]
    else:
        embryos = [stack for stack in picked if stack.group.startswith("Emb")]
        picked = embryos[::3] + [stack for stack in picked if stack not in embryos]
    loaded = []
    for stack in picked:
        image, truth = (volume[:96, :128, :128] for volume in stack.load())
        loaded.append((stack, image, truth, median_diameter(truth, stack.anisotropy)))
    baseline = segment_nuclei if model == "nuclei" else segment_membranes

    def quality(settings: WatershedSettings) -> float:
        scores = []
        for stack, image, truth, diameter in loaded:
            labels = baseline(
                image, diameter=diameter, anisotropy=stack.anisotropy, settings=settings
            )
            result = evaluate(labels, truth, ignore_unlabelled=stack.sparse, thresholds=(0.5,))
            scores.append((result.mean_dice, result.at(0.5).average_precision))
        dice, precision = np.mean(scores, axis=0)
        print(f"Dice {dice:.3f} AP50 {precision:.3f} {settings}", flush=True)
        return float(dice + precision)

    best = NUCLEI if model == "nuclei" else MEMBRANES
    reached = quality(best)
    for name, values in SEARCH[model].items():
        for value in values:
            if value == getattr(best, name):
                continue
            candidate = replace(best, **{name: value})
            score = quality(candidate)
            if score > reached:
                best, reached = candidate, score
    print("best:", best)
