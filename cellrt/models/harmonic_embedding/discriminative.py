"""The discriminative loss, which lets a network choose where in the space its objects lie.

De Brabandere, Neven and Van Gool, "Semantic instance segmentation with a discriminative loss
function" (2017): what harmonic embeddings are compared with. It says nothing of what two tiles of
an image do with one object, so that it is for comparison in images of one tile.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PULL_MARGIN = 0.5
"""Euclidean distance to the mean of its object at which a pixel is close enough."""
PUSH_MARGIN = 1.5
"""Half of the distance between two objects' means that is far enough."""
_REGULARISATION = 0.001


def discriminative_loss(embedding: Tensor, labels: Tensor) -> Tensor:
    """Pixels are drawn to the mean of their object, means are driven apart, none goes far away.

    Parameters
    ----------
    embedding : (n, d, z, y, x) Tensor
    labels : (n, z, y, x) integer Tensor
        Objects above 0; all else does not count.

    Returns
    -------
    Tensor
        Scalar: the mean of the patches' losses, with the weights of the paper (1, 1 and 0.001).
    """
    patches = zip(embedding.flatten(2), labels.flatten(1), strict=True)
    losses = [_of_patch(places, cells) for places, cells in patches]
    return torch.stack(losses).mean()


def _of_patch(places: Tensor, labels: Tensor) -> Tensor:
    inside = labels > 0
    if not inside.any():
        return places.sum() * 0
    places = places[:, inside].float()
    ids, owner, pixels = torch.unique(labels[inside], return_inverse=True, return_counts=True)
    count = len(ids)
    sums = places.new_zeros(len(places), count).index_add(1, owner, places)
    means = sums / pixels
    beyond = F.relu(_length(places - means[:, owner]) - PULL_MARGIN).square()
    pull = (places.new_zeros(count).index_add(0, owner, beyond) / pixels).mean()
    push = places.new_zeros(())
    if count > 1:
        apart = _length(means[:, :, None] - means[:, None])
        near = F.relu(2 * PUSH_MARGIN - apart).square()
        push = (near.sum() - near.diagonal().sum()) / (count * (count - 1))
    loss: Tensor = pull + push + _REGULARISATION * _length(means).mean()
    return loss


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length along the first axis; its slope is finite at 0."""
    return (vectors.square().sum(dim=0) + 1e-12).sqrt()
