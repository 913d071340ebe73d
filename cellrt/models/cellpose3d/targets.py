"""What Cellpose3D learns from a label image, and how far off it is: targets and loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from cellrt.models.cellpose3d.network import FLOW_CHANNELS
from cellrt.models.ground_truth import UNKNOWN

IGNORED = -1.0
"""Foreground target of voxels that do not count."""


def make_targets(
    labels: npt.NDArray[Any], *, flow: str = "tanh", boundary_voxels: int = 0
) -> npt.NDArray[np.float32]:
    """Turn labels into the four target fields.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Cells above 0, background 0, unknown -1.
    flow : {"tanh", "centroid", "heat"}
        Formulation of the flow; see `cellrt.runtime.decoding.flows.targets`.
    boundary_voxels : int
        Foreground voxels within this many voxels of another label become background, so that a
        network for membranes learns the walls. The flow is that of the whole cell.

    Returns
    -------
    (4, z, y, x) float32 array
        Flow z, y, x, then foreground: 1 cell, 0 background or wall, -1 unknown.
    """
    from cellrt.runtime.decoding.flows import targets as flows

    labels = np.ascontiguousarray(labels, np.int32)
    compute = getattr(flows, f"{flow}_flow")
    foreground = (labels > 0).astype(np.float32)
    if boundary_voxels:
        foreground[near_other_label(labels, boundary_voxels)] = 0.0
    foreground[labels == UNKNOWN] = IGNORED
    return np.concatenate([compute(labels), foreground[None]])


def near_other_label(labels: npt.NDArray[Any], voxels: int) -> npt.NDArray[np.bool_]:
    """Mark voxels with a different known label within so many steps along an axis.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Unknown voxels (-1) are no neighbours to anyone.
    voxels : int
        Reach in voxels, city-block beyond the first.

    Returns
    -------
    (z, y, x) bool array
    """
    near = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        for reach in range(1, voxels + 1):
            if labels.shape[axis] <= reach:
                continue
            low = tuple(slice(0, -reach) if k == axis else slice(None) for k in range(labels.ndim))
            high = tuple(
                slice(reach, None) if k == axis else slice(None) for k in range(labels.ndim)
            )
            differ = labels[low] != labels[high]
            differ &= (labels[low] != UNKNOWN) & (labels[high] != UNKNOWN)
            near[low] |= differ
            near[high] |= differ
    return near


def cellpose3d_loss(
    logits: Tensor, targets: Tensor, labels: Tensor, *, flow_weight: float, foreground: str = "bce"
) -> dict[str, Tensor]:
    """Foreground term plus mean squared error of the flows inside the cells.

    Parameters
    ----------
    logits : Tensor
        ``(n, 4, z, y, x)`` raw network output, before tanh and sigmoid.
    targets : Tensor
        ``(n, 4, z, y, x)`` from `make_targets`; foreground -1 does not count.
    labels : Tensor
        ``(n, z, y, x)`` integer; flows count where it is above 0, walls included.
    flow_weight : float
        Weight of the flow term against the foreground term.
    foreground : {"bce", "l1"}
        Binary cross entropy, or mean absolute error of the probability.

    Returns
    -------
    dict of Tensor
        Scalars ``loss``, ``foreground`` and ``flow``.
    """
    known = (targets[:, FLOW_CHANNELS] >= 0).to(logits.dtype)
    wanted = targets[:, FLOW_CHANNELS].clamp(min=0)
    raw = logits[:, FLOW_CHANNELS]
    if foreground == "bce":
        per_voxel = F.binary_cross_entropy_with_logits(raw, wanted, reduction="none")
    else:
        per_voxel = (torch.sigmoid(raw) - wanted).abs()
    foreground_loss = (per_voxel * known).sum() / known.sum().clamp(min=1)

    inside = (labels > 0).to(logits.dtype)
    squared = (torch.tanh(logits[:, :FLOW_CHANNELS]) - targets[:, :FLOW_CHANNELS]).square()
    flow_loss = (squared.mean(dim=1) * inside).sum() / inside.sum().clamp(min=1)
    return {
        "loss": foreground_loss + flow_weight * flow_loss,
        "foreground": foreground_loss.detach(),
        "flow": flow_loss.detach(),
    }
