"""Cellpose3D: a 3D U-Net that predicts a flow towards each cell's centre and the foreground.

Eschweiler et al., "Robust 3D Cell Segmentation: Extending the View of Cellpose" (2021). The
network here differs from the published one on purpose: batch norm instead of instance norm, so
that export folds it away and tiles equal the whole volume, and a sigmoid on the foreground.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cellrt.models.layers.unet import UNet

FLOW_CHANNELS = 3
"""Flow components z, y, x; channel ``FLOW_CHANNELS`` of the output is the foreground."""


class Cellpose3D(UNet):
    """3D U-Net with four output fields: flow along z, y and x, and foreground.

    Parameters
    ----------
    widths : sequence of int
        Channels of the encoder levels, finest first; see `cellrt.models.layers.unet.UNet`.
    in_channels : int
        Channels of the input image.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128), in_channels: int = 1) -> None:
        super().__init__(widths, FLOW_CHANNELS + 1, in_channels)

    def activate(self, logits: Tensor) -> Tensor:
        """Return flow z, y, x in (-1, 1) and foreground probability in (0, 1)."""
        flow, foreground = logits[:, :FLOW_CHANNELS], logits[:, FLOW_CHANNELS:]
        return torch.cat([torch.tanh(flow), torch.sigmoid(foreground)], dim=1)
