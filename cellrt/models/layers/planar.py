"""Convolutions of single planes that learn as fast as 2D ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PlanarConv(nn.Conv3d):
    """A convolution whose kernel has one voxel along z, computed in 2D while it learns.

    Exported it is that of 3D, which engines compute as fast. PyTorch does not in bf16: on two cores
    with AMX a step of 8 patches of 160² pixels takes 0.14 s in 2D, minutes in 3D, 0.30 s in fp32.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Convolve ``(n, channels, z, y, x)``."""
        if not self.training or image.shape[2] != 1:
            return super().forward(image)
        _, *strides = self.stride
        _, *padding = (int(size) for size in self.padding)
        plane = F.conv2d(image.squeeze(2), self.weight.squeeze(2), self.bias, strides, padding)
        return plane.unsqueeze(2)


class PlanarConvTranspose(nn.ConvTranspose3d):
    """The same for a transposed convolution without overlaps."""

    def forward(self, image: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve ``(n, channels, z, y, x)``."""
        if not self.training or image.shape[2] != 1:
            return super().forward(image, output_size)
        _, *strides = self.stride
        plane = F.conv_transpose2d(image.squeeze(2), self.weight.squeeze(2), self.bias, strides)
        return plane.unsqueeze(2)
