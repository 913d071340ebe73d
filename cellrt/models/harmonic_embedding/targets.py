"""What harmonic embeddings learn from a label image, and how far off they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from cellrt.models.ground_truth import UNKNOWN
from cellrt.models.harmonic_embedding.guides import object_waves

IGNORED = -1.0
"""Foreground target of pixels that do not count."""


def make_targets(
    labels: npt.NDArray[Any], frequencies: npt.NDArray[np.float64], margin: int = 0
) -> npt.NDArray[np.float32]:
    """Turn labels into the waves of their objects, and foreground.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Cells above 0, background 0, unknown -1. Each plane is an image of its own.
    frequencies : (n, 2) float64 array
        Of the guides along (y, x), in cycles per pixel.
    margin : int
        Pixels on every side that are there to show objects as a whole.

    Returns
    -------
    (2 n + 1, z, y, x) float32 array
        Real and then imaginary parts of the mean of each guide's complex wave over the pixel's
        object, as if the first pixel within the margin lay at the origin, 0 in the background;
        then foreground: 1 cell, 0 background, -1 unknown.
    """
    targets = np.zeros((2 * len(frequencies) + 1, *labels.shape), np.float32)
    back = np.exp(-2j * np.pi * frequencies.sum(axis=1) * margin)
    for z, plane in enumerate(labels):
        cells = np.maximum(plane, 0)
        there = np.bincount(cells.ravel()) > 0
        there[0] = False
        numbers = np.where(there, np.cumsum(there), 0)[cells]  # small, whatever the labels are
        waves = back * object_waves(numbers, frequencies)
        # Columns of an array of (channels, objects), so that no pixel is held in complex numbers.
        parts = np.concatenate([waves.real, waves.imag], axis=1).T.astype(np.float32)
        targets[:-1, z] = parts[:, numbers]
        targets[-1, z] = np.where(plane == UNKNOWN, IGNORED, plane > 0)
    return targets


def places_of(targets: Tensor, turns: Tensor, phases: Tensor) -> Tensor:
    """Mean guides of each pixel's object, where the patch lies somewhere else.

    Parameters
    ----------
    targets : (n, 2 d + 1, z, y, x) Tensor
        Of `make_targets`.
    turns : (n, d) Tensor
        `cellrt.runtime.model.guides.turns` of the patches' first pixels.
    phases : (d,) Tensor
        Of the guides, in radians.

    Returns
    -------
    (n, d, z, y, x) Tensor
    """
    count = phases.shape[0]
    angle = (2 * torch.pi * turns + phases)[..., None, None, None]
    real, imaginary = targets[:, :count], targets[:, count : 2 * count]
    return imaginary * torch.cos(angle) + real * torch.sin(angle)


def harmonic_loss(embedding: Tensor, places: Tensor, foreground: Tensor) -> Tensor:
    """Mean L1 distance of embeddings in a dimension, over the foreground (equation 5).

    Parameters
    ----------
    embedding, places : (n, d, z, y, x) Tensor
        What the network says, and where the pixels' objects belong.
    foreground : (n, z, y, x) Tensor
        1 cell, 0 background, -1 unknown.
    """
    inside = (foreground > 0).float()
    distance = (embedding.float() - places).abs().mean(dim=1)
    return (distance * inside).sum() / inside.sum().clamp(min=1)


def foreground_loss(logits: Tensor, foreground: Tensor) -> Tensor:
    """Mean cross entropy of the foreground, (n, z, y, x), where it is known."""
    known = (foreground >= 0).float()
    entropy = F.binary_cross_entropy_with_logits(
        logits.float(), foreground.clamp(min=0), reduction="none"
    )
    return (entropy * known).sum() / known.sum().clamp(min=1)
