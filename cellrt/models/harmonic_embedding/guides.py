"""Guide functions: waves over the image whose means tell its objects apart.

Kulikov and Lempitsky, "Instance Segmentation of Biological Images Using Harmonic Embeddings",
2020, equations 3 and 4. Guide k is ``sin(2 pi (f_k . p) + phi_k)`` of the position p of a pixel
(y, x) in the whole image; an object's place in the embedding space is the mean of all guides over
its pixels. The sine is the imaginary part of a complex wave, whose mean over an object only turns
when the object moves: means are taken once, wherever an object will lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cellrt.models.harmonic_embedding.guide_table import GuideTable

_STEPS = 400
_LEARNING_RATE = 0.02
# Pixels that stand for an object, and objects of an image, while guides are fitted.
_PIXELS = 24
_OBJECTS = 96
# Images and places in them at which the fitted guides are judged, by all pixels and pairs.
_JUDGED = 200
_ORIGINS = 4
_FARTHEST = 4096


@dataclass(frozen=True)
class _Objects:
    """Objects of one image: pixels (n, _PIXELS, 2) that stand for each, and the middles (n, 2)."""

    pixels: npt.NDArray[np.float32]
    middles: npt.NDArray[np.float32]


def fit_guides(
    images: Iterable[npt.NDArray[Any]],
    *,
    dimensions: int,
    margin: float,
    highest_frequency: float,
    zoom: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> GuideTable:
    """Find guides whose means over any two objects of an image differ by a margin.

    Parameters
    ----------
    images : iterable of (y, x) integer arrays
        Labels; 0 and below is no object.
    dimensions : int
        Guides to find.
    margin : float
        L1 distance that is wanted between the places of any two objects of an image.
    highest_frequency : float
        Frequencies begin uniformly between 0 and this along y and x, in cycles per pixel; those
        along x with either sign.
    zoom : (float, float)
        Range of sizes that training will show.
    seed : int

    Returns
    -------
    GuideTable
        With the smallest distances that were found at several places of the plane, which an image's
        corner may have.
    """
    rng = np.random.default_rng(seed)
    labels = [image for image in images if len(np.unique(image[image > 0])) > 1]
    objects = [_sampled(image, rng) for image in labels]
    start = rng.uniform(0, 1, (dimensions, 2)) * rng.choice([-1, 1], (dimensions, 1))
    start[:, 0] = np.abs(start[:, 0])  # a wave and its mirror image are one
    frequencies = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    phases = torch.tensor(rng.uniform(0, 2 * np.pi, dimensions), dtype=torch.float32)
    phases.requires_grad_(True)
    optimiser = torch.optim.Adam([frequencies, phases], _LEARNING_RATE)
    for _ in range(_STEPS if objects else 0):
        pixels = torch.from_numpy(_moved(objects[rng.integers(len(objects))], zoom, rng))
        angle = 2 * torch.pi * highest_frequency * (pixels @ frequencies.T) + phases
        places = torch.sin(angle).mean(1)
        distances = torch.nn.functional.pdist(places, 1.0)
        loss = (margin - distances).clamp(min=0).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found = highest_frequency * frequencies.detach().double().numpy()
    turned = np.mod(phases.detach().double().numpy(), 2 * np.pi)
    return _judged(labels, found, turned, margin, rng)


def object_waves(
    labels: npt.NDArray[Any], frequencies: npt.NDArray[np.float64]
) -> npt.NDArray[np.complex128]:
    """Mean of each guide's complex wave over each object, without the phases.

    Parameters
    ----------
    labels : (y, x) integer array
        The pixel at its corner is at the origin. Objects are numbered from 1; what is not above 0
        is none.
    frequencies : (n, 2) float64 array
        Along (y, x), in cycles per pixel.

    Returns
    -------
    (largest label + 1, n) complex128 array
        0 for labels that do not occur.
    """
    count = int(labels.max(initial=0)) + 1
    y, x = np.nonzero(labels > 0)
    cell = labels[y, x]
    pixels = np.maximum(np.bincount(cell, minlength=count), 1)
    waves = np.empty((count, len(frequencies)), np.complex128)
    for k, (fy, fx) in enumerate(frequencies):
        angle = 2 * np.pi * (fy * y + fx * x)
        real = np.bincount(cell, np.cos(angle), count)
        waves[:, k] = (real + 1j * np.bincount(cell, np.sin(angle), count)) / pixels
    return waves


def guide_maps(
    turned: Tensor, frequencies: Tensor, phases: Tensor, size: tuple[int, int], step: int
) -> Tensor:
    """Values of the guides on the grid of a layer.

    Parameters
    ----------
    turned : (n, dimensions) Tensor
        `cellrt.runtime.model.guides.turns` at the first pixel of each tile, at full resolution.
    frequencies, phases : Tensor
        (dimensions, 2) in cycles per pixel, and (dimensions,) in radians.
    size : (int, int)
        Rows and columns of the layer's grid.
    step : int
        Pixels between them at full resolution.

    Returns
    -------
    (n, dimensions, y, x) Tensor
        What depends on the place in the tile and what depends on the tile are small numbers, each
        by itself: both survive 16 bits.
    """
    rows, columns = (
        (torch.arange(count, device=phases.device) + 0.5) * step - 0.5 for count in size
    )
    angle = (
        2
        * torch.pi
        * (frequencies[:, 0, None, None] * rows[:, None] + frequencies[:, 1, None, None] * columns)
    )
    angle = angle + phases[:, None, None]
    begin = (2 * torch.pi * turned)[..., None, None]
    return torch.sin(angle) * torch.cos(begin) + torch.cos(angle) * torch.sin(begin)


def _sampled(labels: npt.NDArray[Any], rng: np.random.Generator) -> _Objects:
    """Objects of an image by some pixels of each, drawn with repetition."""
    y, x = np.nonzero(labels > 0)
    order = np.argsort(labels[y, x], kind="stable")
    places = np.stack([y[order], x[order]], axis=1).astype(np.float32)
    first = np.flatnonzero(np.diff(labels[y, x][order], prepend=0))
    sizes = np.diff(first, append=len(places))
    chosen = first[:, None] + (rng.random((len(first), _PIXELS)) * sizes[:, None]).astype(int)
    middles = np.add.reduceat(places, first) / sizes[:, None]
    return _Objects(places[chosen], middles.astype(np.float32))


def _moved(
    objects: _Objects, zoom: tuple[float, float], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Pixels of neighbouring objects as training may show them: turned, flipped, zoomed, moved."""
    middle = objects.middles[rng.integers(len(objects.middles))]
    apart = np.square(objects.middles - middle).sum(axis=1)
    pixels = objects.pixels[np.argsort(apart)[:_OBJECTS]] - middle
    if rng.random() < 0.5:
        pixels = pixels[..., ::-1]
    scale = np.exp(rng.uniform(*np.log(zoom))) * rng.choice([-1, 1], 2)
    return np.ascontiguousarray(pixels * scale + rng.uniform(0, _FARTHEST, 2), np.float32)


def _judged(
    labels: Sequence[npt.NDArray[Any]],
    frequencies: npt.NDArray[np.float64],
    phases: npt.NDArray[np.float64],
    margin: float,
    rng: np.random.Generator,
) -> GuideTable:
    """Guides with the smallest distances between objects, and the loss of equation 4."""
    smallest, euclidean, lost, close, pairs = np.inf, np.inf, 0.0, 0, 0
    chosen = rng.permutation(len(labels))[:_JUDGED]
    for image in (labels[i] for i in chosen):
        waves = object_waves(image, frequencies)[np.unique(image[image > 0])]
        hinge = 0.0
        for origin in (np.zeros(2), *rng.uniform(0, _FARTHEST, (_ORIGINS - 1, 2))):
            turned = np.exp(1j * (2 * np.pi * frequencies @ origin + phases))
            places = torch.from_numpy((waves * turned).imag)
            distances = torch.nn.functional.pdist(places, 1.0).numpy()
            smallest = min(smallest, float(distances.min()))
            euclidean = min(euclidean, float(torch.nn.functional.pdist(places).min()))
            hinge += float(np.maximum(0, margin - distances).mean()) / _ORIGINS
            close += int((distances < margin).sum())
            pairs += distances.size
        lost += hinge / max(len(chosen), 1)
    return GuideTable(
        frequencies=tuple((float(fy), float(fx)) for fy, fx in frequencies),
        phases=tuple(map(float, phases)),
        margin=margin,
        smallest_l1=smallest if pairs else 0.0,
        smallest_l2=euclidean if pairs else 0.0,
        hinge_loss=lost,
        close_pairs=close,
        pairs=pairs,
    )
