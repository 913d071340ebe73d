"""The 3DCellSeg loss, and the Dice losses that the paper compares it with.

Wang et al. (2022), eq. 5 to 7. All sums run over the voxels of a whole batch, so that a patch
without cells or without background has company.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cellrt.runtime.decoding.classes.class_map import BACKGROUND, FOREGROUND, MEMBRANE

KINDS = ("3dcellseg", "3dcellseg-no-weights", "dice+weights", "dice")
_SMOOTHING = 1.0
"""Voxels added above and below the fraction, as published: classes may be absent."""


def cellseg3d_loss(
    logits: Tensor, targets: Tensor, *, kind: str = "3dcellseg", alpha: float = 0.1
) -> dict[str, Tensor]:
    """Dice loss of the foreground plus that of the other classes.

    Parameters
    ----------
    logits : Tensor
        ``(n, 3, z, y, x)`` raw network output, before softmax.
    targets : Tensor
        ``(n, 2, z, y, x)`` from `cellrt.models.cellseg3d.targets.make_class_targets`; voxels of
        class -1 do not count.
    kind : {"3dcellseg", "3dcellseg-no-weights", "dice+weights", "dice"}
        With "3dcellseg" the foreground's p becomes ``p / (p + alpha)`` (eq. 6); with weights the
        numerators are weighted (eq. 5 and 6).
    alpha : float
        Smaller punishes more foreground of low confidence; the paper uses 0.1.

    Returns
    -------
    dict of Tensor
        Scalars ``loss``, ``foreground`` and ``others``.
    """
    wanted, weights = targets[:, 0], targets[:, 1]
    known = (wanted >= 0).to(logits.dtype)
    if kind not in ("3dcellseg", "dice+weights"):
        weights = torch.ones_like(weights)
    probabilities = torch.softmax(logits, dim=1)

    confidence = probabilities[:, FOREGROUND]
    if kind.startswith("3dcellseg"):
        confidence = confidence / (confidence + alpha)
    foreground = _dice_loss([(confidence * known, (wanted == FOREGROUND).to(known), weights)])
    others = _dice_loss(
        [
            (probabilities[:, index] * known, (wanted == index).to(known), weights)
            for index in (BACKGROUND, MEMBRANE)
        ]
    )
    return {
        "loss": foreground + others,
        "foreground": foreground.detach(),
        "others": others.detach(),
    }


def _dice_loss(classes: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Dice loss of (prediction, mask, weights), summed over classes as over voxels."""
    overlap = torch.stack([(p * g * w).sum() for p, g, w in classes]).sum()
    size = torch.stack([p.square().sum() + g.sum() for p, g, _ in classes]).sum()
    return 1 - (2 * overlap + _SMOOTHING) / (size + _SMOOTHING)
