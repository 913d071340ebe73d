"""StarDist 3D: object probability and radii along rays, from every second voxel.

Weigert et al., "Star-convex Polyhedra for 3D Object Detection and Segmentation in Microscopy"
(2020), with the U-Net of `cellrt.models.layers.unet`, which stops at stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellrt.models.layers.network import start_from
from cellrt.models.layers.unet import UNet


class StarDist3D(UNet):
    """Object probability and radii, at half of the image's resolution.

    Parameters
    ----------
    widths : sequence of int
        Channels of the encoder levels, finest first; see `cellrt.models.layers.unet.UNet`.
    features : int
        Channels of the convolution that both outputs are read from.
    rays : int
        Radii per voxel.
    nominal_radius : float
        Radius in voxels of the cells that the network is meant for: the unit of raw radii.
    """

    def __init__(
        self, widths: Sequence[int], features: int, rays: int, nominal_radius: float
    ) -> None:
        super().__init__(widths, 1 + rays, finest=1)
        self._unit = nominal_radius
        self.head = nn.Sequential(
            nn.Conv3d(self.widths[1], features, 3, padding=1, bias=False),
            nn.BatchNorm3d(features),
            nn.ReLU(inplace=True),
            nn.Conv3d(features, 1 + rays, 1),
        )
        start_from(self.head[-1], [0.0] + [1.0] * rays)

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel."""
        return super().receptive_radius + self.output_stride

    def activate(self, logits: Tensor) -> Tensor:
        """Return the probability in (0, 1) and radii in voxels of the input."""
        return torch.cat([torch.sigmoid(logits[:, :1]), logits[:, 1:] * self._unit], dim=1)
