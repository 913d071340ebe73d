"""The loss of HarmonicNet: eq. 4 to 6 of Eschweiler et al. (2020), at three scales.

Equation 5 adds up the errors of all coefficients. Most of them are small and hard to tell, and the
least sum is had by leaving them at 0, which a network of few channels does: trained so, it knew the
size of a cell and how flat it is, and of its shape hardly more. What is wanted is a surface in its
place, so that the error can be that of radii instead, deep voxels counting most.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cellrt.models.harmonicnet.tables import ShapeError
from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.star.harmonics import real_spherical_harmonics

# From this depth on, voxels count as foreground where the distance map is balanced (eq. 4).
_DEEP = 0.5
# Directions along which radii are compared.
_RAYS = 96


def harmonicnet_loss(
    scales: Sequence[Tensor],
    targets: Tensor,
    *,
    nominal_radius: float,
    distance_weight: float = 0.5,
    harmonics_weight: float = 0.5,
    scale_weights: Sequence[float] = (1.0, 2.0, 3.0),
    shape_error: ShapeError = "coefficients",
) -> dict[str, Tensor]:
    """L1 of distance maps, balanced between deep voxels and all others, and L1 of shapes.

    Parameters
    ----------
    scales : sequence of Tensor
        ``(n, 1 + harmonics, z, y, x)`` raw output from coarse to fine, each twice as fine as the
        one before; coefficients in units of the first one of a ball of the nominal radius.
    targets : Tensor
        As fine as the last of `scales`, from
        `cellrt.models.harmonicnet.targets.make_harmonic_targets`; depth -1 does not count.
    nominal_radius : float
        In voxels.
    distance_weight, harmonics_weight : float
        Of eq. 6.
    scale_weights : sequence of float
        From coarse to fine; only what they are of their sum matters.
    shape_error : {"coefficients", "radii"}
        The sum of the errors of coefficients (eq. 5), or the mean error of the radii that they
        give along directions, weighted by depth.

    Returns
    -------
    dict of Tensor
        Scalars ``loss``, and of the finest scale ``distance`` and ``harmonics``: the latter, as a
        part of the nominal radius, is the error of radii, or the sum of all coefficients' errors,
        which is above that.
    """
    unit = nominal_radius * math.sqrt(4 * math.pi)
    targets = torch.cat([targets[:, :1], targets[:, 1:] / unit], dim=1)
    total = targets.new_zeros(())
    distance = harmonics = total
    wanted = [targets]
    while len(wanted) < len(scales):
        wanted.insert(0, _coarser(wanted[0]))
    shape_loss = _radii_loss if shape_error == "radii" else _coefficients_loss
    for raw, aim, weight in zip(scales, wanted, scale_weights, strict=True):
        distance, harmonics = _map_loss(raw, aim), shape_loss(raw, aim)
        total = total + weight * (distance_weight * distance + harmonics_weight * harmonics)
    return {
        "loss": total / sum(scale_weights),
        "distance": distance.detach(),
        "harmonics": harmonics.detach(),
    }


def _map_loss(raw: Tensor, targets: Tensor) -> Tensor:
    depth = targets[:, 0]
    error = (torch.sigmoid(raw[:, 0].float()) - depth).abs()
    return _mean(error, depth >= _DEEP) + _mean(error, (depth >= 0) & (depth < _DEEP))


def _coefficients_loss(raw: Tensor, targets: Tensor) -> Tensor:
    error = (raw[:, 1:].float() - targets[:, 1:]).abs().sum(dim=1)
    return _mean(error, targets[:, 0] > 0)


def _radii_loss(raw: Tensor, targets: Tensor) -> Tensor:
    error = raw[:, 1:].float() - targets[:, 1:]
    harmonics = _harmonics(error.shape[1]).to(error.device)
    radii = torch.einsum("rk,nkzyx->nrzyx", harmonics, error)
    return _mean(radii.abs().mean(dim=1), targets[:, 0].clamp(min=0))


@functools.cache
def _harmonics(count: int) -> Tensor:
    """Radii, as parts of a ball's, that relative coefficients give along directions."""
    values = real_spherical_harmonics(directions(_RAYS), math.isqrt(count) - 1)
    return torch.from_numpy(math.sqrt(4 * math.pi) * values).float()


def _mean(error: Tensor, where: Tensor) -> Tensor:
    return (error * where).sum() / where.sum().clamp(min=1e-6)


def _coarser(targets: Tensor) -> Tensor:
    """Halve the resolution: the mean depth, and the coefficients of the deepest voxel."""
    depth, coefficients = targets[:, :1], targets[:, 1:]
    mean = F.avg_pool3d(depth, 2)
    mean = mean.masked_fill(F.max_pool3d(-depth, 2) > 0, -1.0)
    _, deepest = F.max_pool3d(depth, 2, return_indices=True)
    chosen = coefficients.flatten(2).gather(
        2, deepest.flatten(2).expand(-1, coefficients.shape[1], -1)
    )
    return torch.cat([mean, chosen.reshape(-1, chosen.shape[1], *mean.shape[2:])], dim=1)
