"""How a decoder's parameters are chosen: on stacks that no table scores.

    python benchmarks/threshold.py nuclei
    python benchmarks/threshold.py path/to/model.onnx

Prints mean Dice + AP at IoU 0.5, averaged over groups of stacks, for each pair of values:
foreground threshold and least confidence of flows, touching area and least radius of TASCAN.
`nuclei`: the embryo kept for validation, simulated stacks of both styles, and the paper's setting
with its first point-spread function. `membranes`: simulated stacks of both styles, and the part of
plant_patch that is trained on; with TASCAN clumped ones too. Models of single images: the images
kept for validation, and sections that are trained on. Seeds are apart from those of the
recipes and of the accuracy benchmark.
"""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from accuracy import model_options
from accuracy_stacks import (
    LabelledStack,
    images,
    median_diameter,
    simulated_stack,
    stacks,
    tissue_trained_on,
)
from numpy.typing import NDArray
from report import parser

import cellrt
from cellrt.errors import CellrtWarning
from cellrt.evaluation import evaluate
from cellrt.runtime.model.card import ModelCard

# By decoder: two parameters and their values.
PARAMETERS: dict[str, dict[str, tuple[float, ...]]] = {
    "flows": {
        "foreground_threshold": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7),
        "min_probability": (0.0, 0.65, 0.7, 0.75, 0.8, 0.85),
    },
    "tascan": {
        "min_area": (10, 20, 30, 40, 50, 60, 80, 100, 120),
        "min_radius": (0.0, 1.5, 2.0, 2.5, 3.0, 3.5),
    },
}
SEED = 800_000


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("model", help="name of a bundled model, or a file")
    model = cellrt.load_model(arguments.parse_args().model)
    cells = cellrt.Segmenter(model)
    warnings.simplefilter("ignore", CellrtWarning)
    names, values = zip(*PARAMETERS[model.card.decoder].items(), strict=True)
    pairs = list(itertools.product(*values))
    scores: dict[tuple[str, tuple[float, ...]], list[tuple[float, float]]] = defaultdict(list)
    for stack in chosen(model.card):
        image, truth = stack.load()
        told, _ = model_options(stack, median_diameter(truth, stack.anisotropy))
        fields = cells.predict(image, **told)
        for pair in pairs:
            labels = cells.decode(fields, dict(zip(names, pair, strict=True))).labels
            found = evaluate(labels, truth, ignore_unlabelled=stack.sparse, thresholds=(0.5,))
            precision = found.at(0.5).average_precision
            scores[stack.group, pair].append((found.mean_dice, precision))
    groups = list(dict.fromkeys(group for group, _ in scores))
    for pair in pairs:
        means = np.array([np.mean(scores[group, pair], axis=0) for group in groups])
        parts = ", ".join(
            f"{group} {dice:.3f}/{precision:.3f}"
            for group, (dice, precision) in zip(groups, means, strict=True)
        )
        dice, precision = means.mean(axis=0)
        print(f"{pair[0]:g}, {pair[1]:g}: sum {dice + precision:.3f}  Dice/AP50 {parts}")


def chosen(card: ModelCard) -> Iterator[LabelledStack]:
    """Stacks or images for choosing: validation and training data, simulations of their own."""
    if card.planar:
        yield from (image for image in images() if image.group == "DSB 2018, names with 2")
        yield from tissue_trained_on()
        return
    kind = card.target
    group = {"nuclei": "Emb06", "membranes": "plant_patch x < 140"}[kind]
    yield from (stack for stack in stacks() if stack.group == group)
    for style in ("typical", "random", *(["clumped"] if card.decoder == "tascan" else [])):
        for number, z_step in enumerate((1.0, 2.0, 3.0)):
            yield simulated_stack(kind, style, SEED + number, z_step)
    if kind == "nuclei":
        yield LabelledStack("psf1", "simulated nuclei (paper, psf1)", kind, _paper_nuclei)


def _paper_nuclei() -> tuple[NDArray[Any], NDArray[Any]]:
    from cellrt.simulation import simulate_paper_nuclei

    stack = simulate_paper_nuclei("psf1", (140, 140, 400), seed=SEED)
    return stack.image, stack.labels


if __name__ == "__main__":
    main()
