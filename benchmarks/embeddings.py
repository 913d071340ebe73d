"""What tells embeddings where they are, and the discriminative loss, as in tables of paper 001.

    python benchmarks/embeddings.py

Four networks are trained from nothing on the images of `recipes/cells2d-harmonic.toml`, all on the
same patches for the same number of steps: few, so that all of them take ten minutes on two
cores. Interrupted, it goes on where it was. Writes docs/embeddings.md and .json.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import ROOT, parser, table, write

from cellrt.evaluation import evaluate
from cellrt.runtime.decoding.base import Outputs, decode_fields
from cellrt.runtime.decoding.embedding.decoder import (
    EMBEDDING,
    EmbeddingParameters,
    embedding_outputs,
)
from cellrt.runtime.decoding.embedding.waves import turn_waves
from cellrt.training.recipe import Recipe, SimulateTable, load_recipe

RECIPE = ROOT / "recipes" / "cells2d-harmonic.toml"
FOLDER = ROOT / "runs" / "embeddings"
STEPS = 400
PATCH = (1, 128, 128)
LEARNING_RATE = 3e-3
# Differences to the recipe.
NETWORKS: dict[str, dict[str, dict[str, Any]]] = {
    "guides, turned": {"model": {"position": "turn"}},
    "guides, SinConv": {"model": {"position": "sinconv", "sinconv_size": 3}},
    "guides, no position": {"model": {"position": "none"}},
    "discriminative loss": {
        "model": {"position": "none"},
        # Its unit is another one, and the loss is a few times larger.
        "loss": {"kind": "discriminative", "embedding_weight": 1.0},
    },
}
BANDWIDTHS = (0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.2)
# Of images that choose the bandwidth, and of others that are scored.
CHOOSING, SCORED = 8, 24
SEED = 91000
IMAGES: dict[str, dict[str, Any]] = {
    "simulated bacteria, fluorescence": {"kind": "bacteria", "contrast": "fluorescence"},
    "simulated bacteria, phase contrast": {"kind": "bacteria", "contrast": "phase"},
    "simulated worms, bright field": {"kind": "worms", "contrast": "brightfield"},
}
SINES = ", sines alone"
"""After a network's name: of the waves it says, only what the paper has."""
NUCLEI = "fluorescence nuclei (DSB 2018, names that begin with 2)"


@dataclass(frozen=True)
class Measurement:
    """Scores of one network on one image."""

    network: str
    group: str
    bandwidth: float
    sbd: float
    difference: int
    ap50: float
    coco: float


Fields = NDArray[np.float32]
Labels = NDArray[np.int32]


def recipe_of(name: str, steps: int, threads: int | None) -> Recipe:
    """The model's recipe, shortened, with what this network changes."""
    recipe = load_recipe(RECIPE).model_dump()
    changes: dict[str, dict[str, Any]] = {
        "optim": {
            "patch_voxels": PATCH,
            "batch": 4,
            "uses": 2,
            "learning_rate": LEARNING_RATE,
            "max_steps": steps,
            "max_minutes": None,
            "score_stacks": 0,
            "threads": threads,
        },
    }
    for key, values in (*changes.items(), *NETWORKS[name].items()):
        recipe[key] = recipe[key] | values
    return Recipe(**recipe | {"name": "embeddings", "init": None})


def images_of(recipe: Recipe) -> Iterator[tuple[str, Fields, Labels]]:
    """Group, normalised image and truth, on the model's grid; nobody has trained on them."""
    from cellrt.training.data.simulated import simulated_stacks
    from cellrt.training.data.stacks import load_validation_stacks, normalised, to_model_grid

    nominal = recipe.model.nominal_diameter_voxels
    for group, wanted in IMAGES.items():
        options = {"contrast": wanted["contrast"], "diameter_voxels": nominal}
        drawn = SimulateTable(
            name=group,
            kind=wanted["kind"],
            count=CHOOSING + SCORED,
            seed=SEED,
            shape=(1, 224, 224),
            options=options,
        )
        for image, labels, size in simulated_stacks(drawn, recipe):
            stack = to_model_grid(group, image, labels, size, recipe)
            if stack is not None:
                yield group, normalised(stack, nominal), stack.labels
    stacks = load_validation_stacks(recipe)
    for stack in stacks[:: max(1, len(stacks) // (CHOOSING + SCORED))]:
        yield NUCLEI, normalised(stack, nominal), np.maximum(stack.labels, 0)


def sines(fields: Fields, guides: Any) -> Fields:
    """Embedding as in the paper, and foreground, of what a network says of an image."""
    step, count = 1 / 8192, len(guides.phases)
    kept = np.empty((*fields.shape[1:], len(fields)), np.int16)
    turn_waves(fields, 0, guides, step, kept)
    return np.moveaxis(kept[..., count:], -1, 0) * np.float32(step)


def measured(name: str, folder: Path, recipe: Recipe) -> Iterator[Measurement]:
    """Train what is missing, and score all ways to read what the network says."""
    from cellrt.training.checkpoint import load_checkpoint
    from cellrt.training.loop import train
    from cellrt.training.validation import predict_stack

    checkpoint = folder / "last.ckpt"
    if not checkpoint.exists() or not (folder / "done").exists():
        train(recipe, folder, report=lambda line: print(name, line, flush=True))
        (folder / "done").touch()
    net, trained = load_checkpoint(checkpoint)
    shown: dict[str, list[tuple[Fields, Labels]]] = {}
    for group, image, truth in images_of(trained):
        shown.setdefault(group, []).append((predict_stack(net, image), truth))
    guides = trained.model.guides  # type: ignore[union-attr]
    outputs = Outputs(trained.method().outputs, guides=guides)
    yield from scored(name, recipe, outputs, shown)
    if outputs.channels != embedding_outputs(len(outputs.channels) - 1):
        alone = {g: [(sines(f, guides), truth) for f, truth in i] for g, i in shown.items()}
        plain = Outputs(embedding_outputs(len(guides.phases)))
        yield from scored(name + SINES, recipe, plain, alone)


def scored(
    name: str,
    recipe: Recipe,
    outputs: Outputs,
    shown: Mapping[str, Sequence[tuple[Fields, Labels]]],
) -> Iterator[Measurement]:
    """Choose the bandwidth on some images and score the others."""
    parts = {group: split(images) for group, images in shown.items()}
    decoders = {
        value: EMBEDDING.make(
            EmbeddingParameters(**recipe.decoder | {"bandwidth": value}), outputs, ""
        )
        for value in BANDWIDTHS
    }

    def mean_sbd(value: float) -> float:
        return statistics.fmean(
            evaluate(decode_fields(fields, decoders[value], 1), truth).symmetric_best_dice
            for choosing, _ in parts.values()
            for fields, truth in choosing
        )

    best = max(BANDWIDTHS, key=mean_sbd)
    for group, (_, images) in parts.items():
        for fields, truth in images:
            scores = evaluate(decode_fields(fields, decoders[best], 1), truth)
            yield Measurement(
                name,
                group,
                best,
                scores.symmetric_best_dice,
                scores.count_difference,
                scores.at(0.5).average_precision,
                scores.coco_average_precision,
            )


def split(images: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Every fourth image chooses, the others are scored."""
    step = (CHOOSING + SCORED) // CHOOSING
    return images[::step], [image for n, image in enumerate(images) if n % step]


def document(measurements: Sequence[Measurement], steps: int) -> str:
    """Return docs/embeddings.md."""
    rows = []
    for group in (*IMAGES, NUCLEI):
        for name in dict.fromkeys(m.network for m in measurements):
            found = [m for m in measurements if (m.network, m.group) == (name, group)]
            means = (
                statistics.fmean(values)
                for values in zip(*((m.sbd, m.ap50, m.coco) for m in found), strict=True)
            )
            difference = statistics.fmean(m.difference for m in found)
            figures = (f"{value:.3f}" for value in means)
            chosen = f"{found[0].bandwidth:g}"
            rows.append((group, name, len(found), *figures, f"{difference:.1f}", chosen))
    header = ("images", "network", "of them", "SBD", "AP50", "COCO AP", "|DiC|", "bandwidth")
    return f"""Embeddings as Kulikov and Lempitsky (2020) compare them in their tables.

Four networks, trained from nothing with `recipes/cells2d-harmonic.toml`, but for {steps} steps of
4 patches of {PATCH[1]}² pixels only: what is compared is what each learns in the same few steps
from the same patches in the same order, not what it may reach in the end. With guides, the place of
an object in the space is given by its place in the image. The network says how waves look from each
pixel, which the decoder turns, as for `cells2d-harmonic`, and of which it has both parts, or *sines
alone*, as in the paper; or it sees the guides on its way up (SinConv, as published, but with
kernels of 3 x 3 like all others here); or nothing tells it where it is. With the discriminative
loss of De Brabandere et al. (2017) the network chooses the places, nothing tells it where it is
either, and its paper's margins and weights are taken. Mean shift has the bandwidth,
one of {", ".join(f"{value:g}" for value in BANDWIDTHS)}, that gives each network the best mean SBD
on {CHOOSING} other images of each kind. Cells have the nominal diameter, as in training.

{table(header, rows)}
SBD: symmetric best Dice; COCO AP: mean over IoU 0.5 to 0.95; |DiC|: mean difference in the number
of objects, less is better. The paper reports an SBD of 89.9 with and 78.3 without SinConv on the
leaves of CVPPP, which are not among these images.
"""


def main() -> None:
    """Train, measure and write the page."""
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=STEPS, help="of each training")
    options.add_argument("--threads", type=int, default=os.cpu_count(), help="of each training")
    options.add_argument("--folder", type=Path, default=FOLDER, help="checkpoints")
    arguments = options.parse_args()
    measurements: list[Measurement] = []
    for number, name in enumerate(NETWORKS):
        recipe = recipe_of(name, arguments.steps, arguments.threads)
        folder = arguments.folder / f"{number}-{arguments.steps}"
        measurements += measured(name, folder, recipe)
    text = document(measurements, arguments.steps)
    write("embeddings", "Embeddings compared", text, [asdict(row) for row in measurements])


if __name__ == "__main__":
    main()
