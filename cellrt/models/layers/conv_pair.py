"""Two convolutions with nothing between them, computed as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvPair(nn.Module):
    """A 1x1x1 and then a 3x3x3 convolution from one channel, without biases.

    The product of both kernels does the same in one step, without an image of `middle` channels
    at full resolution; it is computed anew in every call, so that both learn.

    Parameters
    ----------
    middle, width : int
        Channels after the first and after the second convolution.
    """

    bias: None = None

    def __init__(self, middle: int, width: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv3d(1, middle, 1, bias=False)
        self.spatial = nn.Conv3d(middle, width, 3, padding=1, bias=False)

    @property
    def weight(self) -> Tensor:
        """Kernel of both, ``(width, 1, 3, 3, 3)``."""
        pointwise = self.pointwise.weight.flatten(1)
        return torch.einsum("omzyx,mi->oizyx", self.spatial.weight, pointwise)

    def set_weight(self, weight: Tensor) -> None:
        """Choose two kernels whose product this is."""
        share = self.pointwise.out_channels**-0.5
        with torch.no_grad():
            self.pointwise.weight.fill_(share)
            self.spatial.weight.copy_(share * weight)

    def as_one(self) -> nn.Conv3d:
        """Return an ordinary convolution that computes the same."""
        one = nn.Conv3d(1, self.spatial.out_channels, 3, padding=1, bias=False)
        with torch.no_grad():
            one.weight.copy_(self.weight)
        return one.train(self.training)

    def forward(self, image: Tensor) -> Tensor:
        """Convolve ``(n, 1, z, y, x)`` to ``(n, width, z, y, x)``."""
        return F.conv3d(image, self.weight, padding=1)
