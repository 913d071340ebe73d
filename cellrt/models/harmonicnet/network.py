"""HarmonicNet: a residual encoder-decoder with predictions at strides 8, 4 and 2.

Eschweiler et al., "Spherical harmonics for shape-constrained 3D cell segmentation" (2020). Blocks
have three 3x3x3 convolutions and PReLU after each, as published. What differs on purpose: batch
norm, which export folds away; widths, by which it runs on a small computer; and that the third
convolution of a block is its residual one, while the first two are those of the U-Net in
`cellrt.models.layers.unet` under the same names. A trained U-Net is a start for it therefore, where
PReLU begins as ReLU and the residual begins as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cellrt.models.layers.network import Network, start_from
from cellrt.models.whole_cells import STRIDE

SCALES = 3
"""Predictions at strides 8, 4 and 2."""


class HarmonicNet(Network):
    """Distance map and coefficients of harmonics, at half of the image's resolution.

    Parameters
    ----------
    widths : sequence of int
        Channels at strides 1, 2, 4 and 8.
    head_width : int
        Channels inside of the heads for the harmonics; those for the distance have half of them.
    harmonics : int
        Coefficients per voxel.
    nominal_radius : float
        Radius in voxels of the cells that the network is meant for: raw coefficients are relative
        to the first one of a ball of that size.
    """

    def __init__(
        self, widths: Sequence[int], head_width: int, harmonics: int, nominal_radius: float
    ) -> None:
        super().__init__()
        widths = tuple(widths)
        self._unit = nominal_radius * math.sqrt(4 * math.pi)
        self.encoder = nn.ModuleList([_convolutions(1, widths[0])])
        for finer, width in pairwise(widths):
            self.encoder.append(_residual_block(finer, width, stride=2))
        down = widths[:0:-1]  # from stride 8 to stride 2
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deep, shallow, 2, stride=2) for deep, shallow in pairwise(down)
        )
        self.decoder = nn.ModuleList(_residual_block(2 * width, width) for width in down[1:])
        self.distance = nn.ModuleList(_head(width, head_width // 2, 1) for width in down)
        self.harmonics = nn.ModuleList(_head(width, head_width, harmonics) for width in down)
        for head in self.harmonics:
            start_from(head[-1], [1.0] + [0.0] * (harmonics - 1))  # type: ignore[index]

    @property
    def size_multiple(self) -> int:
        """Every spatial size of the input must be a multiple of this many voxels."""
        return int(2**SCALES)

    @property
    def output_stride(self) -> int:
        """Voxels of the input, along each axis, per voxel of the output."""
        return STRIDE

    @property
    def only_learned(self) -> tuple[str, ...]:
        """The heads at strides 8 and 4."""
        return ("distance.0.", "distance.1.", "harmonics.0.", "harmonics.1.")

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel.

        An upper bound, as in `cellrt.models.layers.unet.receptive_radius`.
        """
        radius = 2  # two convolutions at full resolution
        for level in (1, 2, 3):
            scale = 2**level
            radius += scale // 2 + 2 * scale
        for level in (2, 1):
            scale = 2**level
            radius += scale + 3 * scale
        return radius + 3 * STRIDE + STRIDE - 1  # the heads; voxels of a block

    def learned(self, image: Tensor) -> list[Tensor]:
        """Return what `logits` does at strides 8, 4 and 2."""
        return [
            torch.cat([distance(features), harmonics(features)], dim=1)
            for features, distance, harmonics in zip(
                self._features(image), self.distance, self.harmonics, strict=True
            )
        ]

    def logits(self, image: Tensor) -> Tensor:
        """Return ``(n, 1 + harmonics, z/2, y/2, x/2)``: raw distance map, relative coefficients."""
        finest = self._features(image)[-1]
        return torch.cat([self.distance[-1](finest), self.harmonics[-1](finest)], dim=1)

    def activate(self, logits: Tensor) -> Tensor:
        """Return the distance map in (0, 1) and coefficients in voxels of the input."""
        return torch.cat([torch.sigmoid(logits[:, :1]), logits[:, 1:] * self._unit], dim=1)

    def _features(self, image: Tensor) -> list[Tensor]:
        """Features at strides 8, 4 and 2."""
        skips = []
        features = image
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        scales = [skips.pop()]
        for up, block in zip(self.up, self.decoder, strict=True):
            scales.append(block(torch.cat([up(scales[-1]), skips.pop()], dim=1)))
        return scales


class Residual(nn.Module):
    """Adds to features what a convolution of them adds; nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        norm = nn.BatchNorm3d(width)
        nn.init.zeros_(norm.weight)
        self.added = nn.Sequential(
            nn.Conv3d(width, width, 3, padding=1, bias=False), norm, nn.PReLU(width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return features + self.added(features)  # type: ignore[no-any-return]


def _convolutions(inputs: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(width),
        nn.PReLU(width, init=0.0),
        nn.Conv3d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm3d(width),
        nn.PReLU(width, init=0.0),
    )


def _residual_block(inputs: int, width: int, stride: int = 1) -> nn.Sequential:
    return _convolutions(inputs, width, stride).append(Residual(width))


def _head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (inputs, width, width):
        layers += [
            nn.Conv3d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.PReLU(width),
        ]
    return nn.Sequential(*layers, nn.Conv3d(width, outputs, 1))
