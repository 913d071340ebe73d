"""A U-Net with strided convolutions and concatenated skips, whatever its outputs mean.

Batch norm follows every convolution, so that export folds it away and tiles equal the whole volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellrt.geometry import across_planes
from cellrt.models.layers.network import Network
from cellrt.models.layers.planar import PlanarConv, PlanarConvTranspose


class UNet(Network):
    """What U-Nets share; subclasses say how many fields there are and how they are activated.

    Parameters
    ----------
    widths : sequence of int
        Channels of the encoder levels, finest first. Each deeper level halves z, y and x.
    outputs : int
        Fields that it predicts.
    in_channels : int
        Channels of the input image.
    finest : int
        Level at which the decoder stops: 0 is the image's resolution, 1 half of it.
    planar : bool
        Look at each plane by itself: kernels and strides are 1 along z. Measured in OpenVINO, ONNX
        Runtime and training, these are no slower than 2D layers over planes moved to the batch.

    Notes
    -----
    Every convolution before a batch norm has no bias. Input sizes must be multiples of
    ``2 ** (len(widths) - 1)``, along z only unless it is planar.
    """

    def __init__(
        self,
        widths: Sequence[int],
        outputs: int,
        in_channels: int = 1,
        finest: int = 0,
        *,
        planar: bool = False,
    ) -> None:
        super().__init__()
        self.planar = planar
        self.widths = tuple(int(width) for width in widths)
        self.in_channels = in_channels
        self.finest = finest
        inputs = (in_channels, *self.widths[:-1])
        self.encoder = nn.ModuleList(
            _block(inputs[level], width, planar, stride=1 if level == 0 else 2)
            for level, width in enumerate(self.widths)
        )
        doubled = across_planes(2, planar, 1)
        pairs = list(zip(self.widths[1:], self.widths[:-1], strict=True))[finest:][::-1]
        transpose = PlanarConvTranspose if planar else nn.ConvTranspose3d
        self.up = nn.ModuleList(
            transpose(deep, shallow, doubled, stride=doubled) for deep, shallow in pairs
        )
        self.decoder = nn.ModuleList(_block(2 * shallow, shallow, planar) for _, shallow in pairs)
        head = PlanarConv if planar else nn.Conv3d
        self.head: nn.Module = head(self.widths[finest], outputs, 1)

    def features_joined(self, layer: str) -> int:
        """Two for a block on the way up: the finer features, and those from the way down."""
        return 2 if layer.startswith("decoder.") and layer.endswith(".0") else 1

    @property
    def size_multiple(self) -> int:
        """Every spatial size of the input must be a multiple of this many voxels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel."""
        return receptive_radius(len(self.widths), self.finest)

    @property
    def output_stride(self) -> int:
        """Voxels of the input, along each axis, per voxel of the output."""
        return int(2**self.finest)

    def logits(self, image: Tensor) -> Tensor:
        """Return the raw output, ``(n, outputs, z, y, x)``; image as in `Network.logits`."""
        skips = []
        features = image
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([up(features), skips.pop()], dim=1))
        return self.head(features)  # type: ignore[no-any-return]


def receptive_radius(levels: int, finest: int = 0) -> int:
    """Return the receptive-field radius in voxels of a `UNet` with so many levels.

    An upper bound that holds for every position relative to the stride grid: each 3x3x3
    convolution reaches one voxel of its level, each transposed convolution up to one voxel of
    the finer level.
    """
    radius = 2  # two convolutions at full resolution on the way down
    for level in range(1, levels):
        scale = 2**level
        radius += scale // 2 + scale  # the strided convolution sees the finer level, then one more
    for level in range(levels - 2, finest - 1, -1):
        scale = 2**level
        radius += scale + 2 * scale  # transposed convolution, then two convolutions
    return int(radius + 2**finest - 1)  # an output voxel stands for a block


def _block(inputs: int, width: int, planar: bool, stride: int = 1) -> nn.Sequential:
    kernel, padding = across_planes(3, planar, 1), across_planes(1, planar, 0)
    strides = across_planes(stride, planar, 1)
    conv = PlanarConv if planar else nn.Conv3d
    return nn.Sequential(
        conv(inputs, width, kernel, stride=strides, padding=padding, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
        conv(width, width, kernel, padding=padding, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )
