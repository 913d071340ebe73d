"""3DCellSegNet: a light, shallow network for background, membrane and cell interior.

Wang et al., "A novel deep learning-based 3D cell segmentation framework for future image-based
disease detection" (2022), fig. 4. Widths and kernels are the published ones. Each batch norm
stands behind a convolution, so that export folds it away; in the published residual blocks it
stands in front of the activation, one convolution later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellrt.models.layers.conv_pair import ConvPair
from cellrt.models.layers.network import Network
from cellrt.models.layers.unet import UNet
from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS

_STEM, _FINE, _DEEP = 16, 32, 64
_LEVELS = 3


class CellSeg3D(Network):
    """Shallow residual encoder-decoder with additive skips and three classes.

    1.28 million parameters; each output voxel sees 61 voxels along every axis.

    Notes
    -----
    In PyTorch any cuboid will do: what a transposed convolution has more than its skip is
    cropped. The exported graph crops nothing and takes multiples of `size_multiple`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvPair(_STEM, _FINE), nn.BatchNorm3d(_FINE), nn.ReLU(inplace=True)
        )
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(inputs, _DEEP, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm3d(_DEEP),
            )
            for inputs in (_FINE, _DEEP, _DEEP)
        )
        self.residual = nn.ModuleList(nn.Conv3d(_DEEP, _DEEP, 3, padding=1) for _ in range(_LEVELS))
        # A padding of one crops one voxel at every face: 2n voxels along an axis, not 2n + 2.
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose3d(_DEEP, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm3d(width),
                nn.ReLU(inplace=True),
            )
            for width in (_DEEP, _DEEP, _FINE)
        )
        self.head = nn.Conv3d(_FINE, len(CLASS_OUTPUTS), 3, padding=1)

    @property
    def size_multiple(self) -> int:
        """Exported, the network takes sizes that are multiples of this many voxels."""
        return int(2**_LEVELS)

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel.

        More than half of the 61 voxels: the field of a voxel lies up to 7 voxels off its middle,
        because strided convolutions and transposed ones of even size do not share centres.
        """
        radius = 2  # first and last convolution
        for level in range(_LEVELS):
            scale = 2**level
            radius += scale + 2 * scale + 2 * scale  # strided, residual, transposed convolution
        return radius

    @property
    def halo(self) -> int:
        """Half of `Network.halo`: classes are told from closer by than flows are.

        Measured on two simulated stacks with the bundled weights, tiles of 64 voxels against one
        tile: AP at IoU 0.75 of 0.969 and 0.957, with 8 voxels 0.975 and 0.957, with none 0.960
        and 0.946.
        """
        return 4

    def logits(self, image: Tensor) -> Tensor:
        """Return ``(n, 3, z, y, x)`` raw scores of the classes."""
        features = self.stem(image)
        skips = []
        for down, residual in zip(self.down, self.residual, strict=True):
            skips.append(features)
            features = down(features)
            features = features + residual(torch.relu(features))
        for up in self.up:
            skip = skips.pop()
            features = _crop(up(features), skip) + skip
        return self.head(features)  # type: ignore[no-any-return]

    def activate(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        return torch.softmax(logits, dim=1)


class ClassUNet(UNet):
    """The 3D U-Net that the paper compares its network with, of any widths."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, len(CLASS_OUTPUTS))

    def activate(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        return torch.softmax(logits, dim=1)


def _crop(features: Tensor, like: Tensor) -> Tensor:
    # Exported, sizes are multiples of the stride: nothing to crop.
    if torch.compiler.is_exporting() or features.shape[2:] == like.shape[2:]:
        return features
    depth, height, width = like.shape[2:]
    return features[:, :, :depth, :height, :width]
