"""3DCellSeg taken apart as in the paper's table 4: losses, networks and decoders.

    python benchmarks/ablation.py                  # trains what is missing, then scores all
    python benchmarks/ablation.py --only-bundled   # scores of the bundled models alone

Networks are trained from nothing, all on the same patches for the same number of steps: few, on a
coarse grid, so that all of them take an hour or two on two cores. Interrupted, it goes on where it
was. Writes docs/ablation.md and .json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accuracy import model_options
from accuracy_stacks import LabelledStack, median_diameter, stacks
from report import ROOT, parser, table, write
from watershed_baseline import segment_membranes

import cellrt
from cellrt.evaluation import evaluate
from cellrt.runtime.model.file import bundled_models
from cellrt.training.recipe import Recipe, load_recipe

RECIPE = ROOT / "recipes" / "membranes-3dcellseg.toml"
FOLDER = ROOT / "runs" / "ablation"
STEPS = 1200
NOMINAL_DIAMETER = 16.0
PATCH = (40, 40, 40)
# Few steps need a higher rate, and less of the one real stack, than the bundled model's last ones.
LEARNING_RATE = 2e-3
ZOOM = (0.54, 1.17)
PLANT_WEIGHT = 0.5
# Differences to the recipe.
TRAINED: dict[str, dict[str, dict[str, Any]]] = {
    "3DCellSegNet, 3DCellSeg loss": {},
    "3DCellSegNet, 3DCellSeg loss without weights": {"loss": {"kind": "3dcellseg-no-weights"}},
    "3DCellSegNet, Dice loss with weights": {"loss": {"kind": "dice+weights"}},
    "3DCellSegNet, Dice loss": {"loss": {"kind": "dice"}},
    "3D U-Net, 3DCellSeg loss": {"model": {"network": "unet"}},
}
# The network's decoders are compared for the first of these and for the U-Net.
DECODERS = {
    "3DCellSegNet, 3DCellSeg loss": ("tascan", "dbscan", "watershed"),
    "3D U-Net, 3DCellSeg loss": ("tascan", "watershed"),
}
BUNDLED = "membranes-3dcellseg"
GROUPS = ("simulated membranes (clumped)", "plant_patch x >= 140")
METRICS = {
    "ARE": "adapted_rand_error",
    "VOI split": "variation_of_information_split",
    "VOI merge": "variation_of_information_merge",
    "mean JI": "mean_jaccard",
    "mean DSC": "mean_dice",
    "JI > 70 %": "jaccard_above_70",
    "DSC > 70 %": "dice_above_70",
    "AP50": "average_precision",
}


@dataclass(frozen=True)
class Measurement:
    """Scores of one way to labels on one stack; `found` holds those of METRICS, by their keys."""

    group: str
    stack: str
    network: str
    decoder: str
    found: dict[str, float]
    predicted_cells: int
    true_cells: int
    seconds: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only-bundled", action="store_true", help="train nothing")
    arguments.add_argument("--steps", type=int, default=STEPS, help="of each training")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="of each training")
    arguments.add_argument("--folder", type=Path, default=FOLDER, help="checkpoints and models")
    arguments.add_argument(
        "--train", nargs="*", metavar="NUMBER", type=int, help="only train these"
    )
    options = arguments.parse_args()
    models: dict[str, Path] = {}
    for number, name in enumerate(() if options.only_bundled else TRAINED):
        if options.train is None or number in options.train:
            models[name] = trained(name, options.folder / f"{number}", options)
    if options.train is not None:
        return
    measurements = list(measured(models))
    text = document(measurements, options.steps)
    write("ablation", "3DCellSeg taken apart", text, [asdict(row) for row in measurements])


def trained(name: str, folder: Path, options: argparse.Namespace) -> Path:
    """Train and export one network, or find what an earlier run left."""
    from cellrt.export.checkpoint import export
    from cellrt.training.loop import train

    recipe = recipe_of(name, options.steps, options.threads)
    model = folder / f"{options.steps}.onnx"
    if not model.exists():
        checkpoint = train(recipe, folder, report=lambda line: print(name, line, flush=True))
        export(checkpoint, model)
    return model


def recipe_of(name: str, steps: int, threads: int) -> Recipe:
    """Return the bundled model's recipe, shortened, with what this variant changes."""
    recipe = load_recipe(RECIPE).model_dump()
    changes: dict[str, dict[str, Any]] = {
        "model": {"nominal_diameter_voxels": NOMINAL_DIAMETER, "stored_weights": "fp32"},
        "targets": {"weight_reach_voxels": NOMINAL_DIAMETER / 2},
        "augment": {"zoom": ZOOM},
        "optim": {
            "patch_voxels": PATCH,
            "learning_rate": LEARNING_RATE,
            "max_steps": steps,
            "max_minutes": None,
            "score_stacks": 0,
            "freeze_norm_from": 0.7,  # the recipe's 0.2 is for 14 times as many steps
            "threads": threads,
        },
    }
    for key, values in (*changes.items(), *TRAINED[name].items()):
        recipe[key] = recipe[key] | values
    recipe["data"][0]["weight"] = PLANT_WEIGHT
    # Decoders run with the default parameters: none is tuned more than another.
    return Recipe(**recipe | {"decoder": {}, "name": "ablation"})


def measured(models: dict[str, Path]) -> Iterator[Measurement]:
    """Segment all stacks with all networks and decoders."""
    ways = [
        (name, decoder, str(path))
        for name, path in models.items()
        for decoder in DECODERS.get(name, ("tascan",))
    ]
    if BUNDLED in bundled_models():
        ways += [(f"`{BUNDLED}`", name, BUNDLED) for name in ("tascan", "dbscan", "watershed")]
    ways += [("`membranes` (Cellpose3D)", "flows", "membranes"), ("none (Otsu)", "watershed", "")]
    for stack in stacks():
        if stack.group not in GROUPS:
            continue
        image, truth = stack.load()
        diameter = median_diameter(truth[stack.scored], stack.anisotropy)
        for name, decoder, model in ways:
            start = time.perf_counter()
            if model:
                told, _ = model_options(stack, diameter)
                labels = cellrt.segment(image, model=model, decoder=decoder, **told).labels
            else:
                labels = segment_membranes(image, diameter=diameter, anisotropy=stack.anisotropy)
            seconds = time.perf_counter() - start
            row = scored(stack, name, decoder, labels, truth, seconds)
            print(f"{row.stack} {row.network} {row.decoder} {row.found['mean_dice']:.3f}")
            yield row


def scored(
    stack: LabelledStack, name: str, decoder: str, labels: Any, truth: Any, seconds: float
) -> Measurement:
    labels, truth = labels[stack.scored], truth[stack.scored]
    scores = evaluate(labels, truth, ignore_unlabelled=stack.sparse, thresholds=(0.5,))
    values = {**asdict(scores), "average_precision": scores.at(0.5).average_precision}
    return Measurement(
        stack.group,
        stack.name,
        name,
        decoder,
        {key: float(values[key]) for key in METRICS.values()},
        scores.predicted_cells - scores.ignored_cells,
        scores.true_cells,
        seconds,
    )


def rows_of(measurements: Sequence[Measurement], group: str) -> list[list[Any]]:
    """One row for each network and decoder: means over stacks, sums of cells."""
    ways: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in measurements:
        if row.group == group:
            ways[row.network, row.decoder].append(row)
    return [
        [
            *way,
            *(
                f"{statistics.fmean(row.found[key] for row in rows):.3f}"
                for key in METRICS.values()
            ),
            sum(row.predicted_cells for row in rows),
            sum(row.true_cells for row in rows),
        ]
        for way, rows in ways.items()
    ]


def document(measurements: Sequence[Measurement], steps: int) -> str:
    """Return docs/ablation.md."""
    header = ("network, loss", "decoder", *METRICS, "cells found", "cells true")
    parts = "\n".join(
        f"## {group[0].upper()}{group[1:]}\n\n{table(header, rows_of(measurements, group))}"
        for group in GROUPS
    )
    return f"""After table 4 of Wang et al. (2022).

The first rows are networks trained from nothing with `recipes/membranes-3dcellseg.toml`, but for
{steps} steps only, at a higher rate, in patches of {PATCH[0]}³ voxels on a grid where cells are
{NOMINAL_DIAMETER:g} voxels wide: what is compared is what each loss and network learns in the same
few steps from the same patches in the same order, not what it may reach in the end. All decoders
run with their default parameters. VoxResNet, the paper's third network, is not repeated.

Below them, for scale, the bundled models as they are, each fully trained, and Otsu's threshold with
a seeded watershed (told the cells' true diameter, as in [accuracy](accuracy.md)). The bundled model
of this method decodes with the parameters of its card, chosen with `benchmarks/threshold.py` on
other stacks.

{parts}
ARE (adapted Rand error) and VOI (variation of information, bits): lower is better. Mean JI and DSC:
best match of each true cell; JI > 70 % and DSC > 70 %: share of the true cells above. Clumped:
`cellrt simulate membranes --style clumped`, five stacks, uneven and weak stain, one wall in twenty
missing altogether. plant_patch: the part that no training saw, on the cells that lie mostly in it.
"""


if __name__ == "__main__":
    main()
