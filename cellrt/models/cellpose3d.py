"""Cellpose3D: a 3D U-Net that predicts a flow towards each cell's centre and the foreground.

Eschweiler et al., "Robust 3D Cell Segmentation: Extending the View of Cellpose" (2021). The
network here differs from the published one on purpose: batch norm instead of instance norm, so
that export folds it away and tiles equal the whole volume, and a sigmoid on the foreground.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellrt.models.network import Network

FLOW_CHANNELS = 3
"""Flow components z, y, x; channel ``FLOW_CHANNELS`` of the output is the foreground."""


class Cellpose3D(Network):
    """3D U-Net with strided convolutions, concatenated skips and four output fields.

    Parameters
    ----------
    widths : sequence of int
        Channels of the encoder levels, finest first. Each deeper level halves z, y and x.
    in_channels : int
        Channels of the input image.

    Notes
    -----
    Every convolution before a batch norm has no bias. Input sizes must be multiples of
    ``2 ** (len(widths) - 1)``.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128), in_channels: int = 1) -> None:
        super().__init__()
        self.widths = tuple(int(width) for width in widths)
        self.in_channels = in_channels
        inputs = (in_channels, *self.widths[:-1])
        self.encoder = nn.ModuleList(
            _block(inputs[level], width, stride=1 if level == 0 else 2)
            for level, width in enumerate(self.widths)
        )
        pairs = list(zip(self.widths[1:], self.widths[:-1], strict=True))[::-1]
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deep, shallow, 2, stride=2) for deep, shallow in pairs
        )
        self.decoder = nn.ModuleList(_block(2 * shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv3d(self.widths[0], FLOW_CHANNELS + 1, 1)

    @property
    def size_multiple(self) -> int:
        """Every spatial size of the input must be a multiple of this many voxels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel."""
        return receptive_radius(len(self.widths))

    def logits(self, image: Tensor) -> Tensor:
        """Return the raw output: three flow components before tanh, foreground before sigmoid.

        Parameters
        ----------
        image : Tensor
            ``(n, channels, z, y, x)`` float, normalised to about 0..1.

        Returns
        -------
        Tensor
            ``(n, 4, z, y, x)``.
        """
        skips = []
        features = image
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([up(features), skips.pop()], dim=1))
        return self.head(features)  # type: ignore[no-any-return]

    def activate(self, logits: Tensor) -> Tensor:
        """Return flow z, y, x in (-1, 1) and foreground probability in (0, 1)."""
        flow, foreground = logits[:, :FLOW_CHANNELS], logits[:, FLOW_CHANNELS:]
        return torch.cat([torch.tanh(flow), torch.sigmoid(foreground)], dim=1)


def receptive_radius(levels: int) -> int:
    """Return the receptive-field radius in voxels of a `Cellpose3D` with so many levels.

    An upper bound that holds for every position relative to the stride grid: each 3x3x3
    convolution reaches one voxel of its level, each transposed convolution up to one voxel of
    the finer level.
    """
    radius = 2  # two convolutions at full resolution on the way down
    for level in range(1, levels):
        scale = 2**level
        radius += scale // 2 + scale  # the strided convolution sees the finer level, then one more
    for level in range(levels - 2, -1, -1):
        scale = 2**level
        radius += scale + 2 * scale  # transposed convolution, then two convolutions
    return radius


def _block(inputs: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
        nn.Conv3d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )
