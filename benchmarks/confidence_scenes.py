"""Images that confidence is fitted and measured on: as they are, after accidents, other worlds."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accidents import ACCIDENTS, Accident, Image, Pair
from accuracy import model_options
from accuracy_stacks import (
    LabelledStack,
    median_diameter,
    simulated_image,
    simulated_stack,
)
from numpy.typing import NDArray
from robustness import UNDISTURBED
from scipy import ndimage

from cellrt.runtime.model.card import ModelCard

SEED = 960_000
# Simulated stacks are cut to this edge: what confidence needs is many kinds of stacks.
EDGE = 96
# Of the accidents and of other worlds, so many per stack, drawn anew for each: of real stacks there
# are few, while one simulated stack tells little of others.
PER_REAL_STACK = (10, 5)
PER_SIMULATED_STACK = (3, 2)
PER_IMAGE = (3, 1)
# Accidents whose images become too large to be played often.
SLOW = ("cells in a wide dark field",)


@dataclass(frozen=True)
class Scene:
    """An image to judge.

    Parameters
    ----------
    stack, accident : str
    image, truth : (z, y, x) arrays
    options : dict
        What the model is told.
    inside : bool
        Whether it is of the model's world.
    sparse : bool
        Not all visible cells are in the truth.
    real : bool
        Whether a microscope recorded it.
    """

    stack: str
    accident: str
    image: Image
    truth: Image
    options: dict[str, Any]
    inside: bool = True
    sparse: bool = False
    real: bool = False


def scenes(found: list[LabelledStack], card: ModelCard, purpose: str) -> Iterator[Scene]:
    """Stacks as they are, after accidents, and images that are none of the model's business."""
    for stack in found:
        image, truth = stack.load()
        real = bool(stack.files)
        if card.planar:
            image, truth = image[None], truth[None]
        elif not stack.files:
            image, truth = _cut(image), _cut(truth)
        diameter = median_diameter(truth, stack.anisotropy)
        told, _ = model_options(stack, diameter)
        seed = zlib.crc32(f"{purpose} {stack.name}".encode())
        many = PER_REAL_STACK if stack.files else PER_SIMULATED_STACK
        accidents, worlds = PER_IMAGE if card.planar else many
        draw = random.Random(seed)
        quick = [
            a for a in ACCIDENTS if not a.name.startswith(SLOW) and not (card.planar and a.slices)
        ]
        for accident in (
            UNDISTURBED,
            *draw.sample(quick, accidents),
            *draw.sample(OTHER_WORLDS, worlds),
        ):
            rng = np.random.default_rng(zlib.crc32(f"{seed} {accident.name}".encode()))
            changed, left = accident.play(image, truth, rng)
            inside = accident not in OTHER_WORLDS
            yield Scene(stack.name, accident.name, changed, left, told, inside, stack.sparse, real)
        for factor in draw.sample((0.2, 3.0), 2 if stack.files and not card.planar else 1):
            wrong = {"diameter": factor * diameter, "anisotropy": stack.anisotropy}
            name = f"told {factor:g} of the size"
            # Enlarged fivefold, an eighth of the stack is enough to compute.
            edges = [-(-n // 2) if factor < 1 else n for n in image.shape]
            part = _cut(image, edges), _cut(truth, edges)
            yield Scene(stack.name, name, *part, wrong, False, stack.sparse, real)
    other = {"nuclei": "membranes", "membranes": "nuclei"}[card.target]
    styles = ("typical", "random") * (2 if card.planar else 1)
    for number, style in enumerate(styles):
        seed = SEED + number + 10 * (purpose == "fit")
        stack = simulated_stack(other, style, seed, 1.0 + number)
        image, truth = stack.load()
        if card.planar:
            middle = len(image) // 2
            image, truth = image[middle : middle + 1], truth[middle : middle + 1]
        else:
            image, truth = _cut(image), _cut(truth)
        yield Scene(stack.name, f"{other} instead", image, truth, {}, False)


def simulated(card: ModelCard, seed: int, count: int) -> list[LabelledStack]:
    """Stacks of all styles and some distances of slices; images of what the model knows."""
    if card.planar:
        if card.decoder != "embedding":
            return []  # nuclei, of which there are real images
        known = (
            ("bacteria", "fluorescence", (256, 256)),
            ("bacteria", "phase", (256, 256)),
            ("bacteria", "dic", (256, 256)),
            ("worms", "brightfield", (384, 384)),
        )
        return [
            simulated_image(kind, contrast, shape, seed + number)
            for number in range(count)
            for kind, contrast, shape in (known[number % len(known)],)
        ]
    styles = ("typical", "random", *(["clumped"] if card.decoder == "tascan" else []))
    return [
        simulated_stack(
            card.target, styles[number % len(styles)], seed + number, (1.0, 1.6, 2.5)[number % 3]
        )
        for number in range(count)
    ]


def _cut(array: NDArray[Any], edges: Sequence[int] = (EDGE, EDGE, EDGE)) -> NDArray[Any]:
    part = array[tuple(slice(0, edge) for edge in edges)]
    if array.dtype.kind == "i" and part.max() > 0:
        return np.unique(part, return_inverse=True)[1].reshape(part.shape).astype(np.int32)
    return part


def _blurred(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    """Out of focus by half a cell."""
    sizes = np.bincount(labels.ravel())[1:]
    sigma = 0.5 * float(np.median(sizes[sizes > 0])) ** (1 / (2 if len(image) == 1 else 3))
    return ndimage.gaussian_filter(image.astype(np.float32), sigma), labels


def _noise(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    return rng.poisson(np.full(image.shape, 100.0)).astype(np.uint16), np.zeros_like(labels)


def _clouds(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), rng.uniform(1.5, 5))
    counts = 100 + 60 * noise / noise.std()
    return rng.poisson(np.maximum(counts, 0)).astype(np.uint16), np.zeros_like(labels)


def _drowned(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    """Noise of ten times the contrast."""
    spread = 10 * float(image.std())
    return (image + rng.normal(0, spread, image.shape)).astype(np.float32), labels


def _saturated(image: Image, labels: Image, rng: np.random.Generator) -> Pair:
    """So much light that even half of the background is at the largest value."""
    return np.minimum(image, np.quantile(image, 0.4).astype(image.dtype)), labels


OTHER_WORLDS = tuple(
    Accident(name, play)
    for name, play in (
        ("out of focus by half a cell", _blurred),
        ("noise and nothing else", _noise),
        ("clouds of stray light, no cells", _clouds),
        ("noise of ten times the contrast", _drowned),
        ("saturated, cells and background alike", _saturated),
    )
)
