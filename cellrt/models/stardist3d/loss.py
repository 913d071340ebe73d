"""The loss of StarDist 3D, with the weights of its published configuration."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def stardist3d_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    nominal_radius: float,
    radii_weight: float = 0.2,
    background_weight: float = 1e-4,
) -> dict[str, Tensor]:
    """Cross entropy of the probability, and the radii's mean error weighted by it.

    Parameters
    ----------
    logits : Tensor
        ``(n, 1 + rays, z, y, x)`` raw output: the probability before sigmoid, and radii in units
        of the nominal one.
    targets : Tensor
        The same shape, from `cellrt.models.stardist3d.targets.make_star_targets`; depth -1 does
        not count.
    nominal_radius : float
        In voxels.
    radii_weight : float
        Of the radii's term against that of the probability.
    background_weight : float
        In the radii's term: of predicted radii where the probability should be below 1.

    Returns
    -------
    dict of Tensor
        Scalars ``loss``, ``probability`` and ``radii``, the last in voxels.
    """
    raw = logits.float()
    depth = targets[:, 0]
    known = (depth >= 0).float()
    weight = depth.clamp(min=0)
    voxels = known.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(raw[:, 0], weight, reduction="none")
    probability = (entropy * known).sum() / voxels

    radii = raw[:, 1:] * nominal_radius
    error = (radii - targets[:, 1:]).abs().mean(dim=1)
    radii_loss = (error * weight).sum() / weight.sum().clamp(min=1e-6)
    outside = (radii.abs().mean(dim=1) * (1 - weight) * known).sum() / voxels
    return {
        "loss": probability + radii_weight * (radii_loss + background_weight * outside),
        "probability": probability.detach(),
        "radii": radii_loss.detach(),
    }
