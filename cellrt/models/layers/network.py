"""What training and export expect of every network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cellrt.geometry import Shape, across_planes


class Network(nn.Module, ABC):
    """A fully convolutional network from one image to fields on the same grid, or a coarser one.

    Every batch norm follows its convolution inside an ``nn.Sequential``, which is how
    `cellrt.models.layers.fold` finds it.
    """

    takes_turns: int = 0
    """Guides of which `forward` is told, as its second argument, how far they have turned where
    each tile begins; see `cellrt.runtime.model.guides`."""
    planar: bool = False
    """Whether it looks at each plane by itself; then all lengths hold along y and x only."""

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Exported, the network takes sizes that are multiples of this many voxels."""

    @property
    def only_learned(self) -> tuple[str, ...]:
        """First parts of the names of what helps to learn and is no part of the exported graph."""
        return ()

    def features_joined(self, layer: str) -> int:
        """How many features, equally wide, the input of a layer of that name consists of."""
        return 1

    @property
    def size_multiples(self) -> Shape:
        """The same along every axis (z, y, x)."""
        return across_planes(self.size_multiple, self.planar, 1)

    @property
    @abstractmethod
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel."""

    @property
    def halo(self) -> int:
        """Voxels to drop at inner tile faces; farther in, cells hardly change."""
        return 8

    @property
    def output_stride(self) -> int:
        """Voxels of the input, along each axis, per voxel of the output."""
        return 1

    @abstractmethod
    def logits(self, image: Tensor) -> Tensor:
        """Return the raw output.

        Parameters
        ----------
        image : Tensor
            ``(n, 1, z, y, x)`` float, normalised to about 0..1.

        Returns
        -------
        Tensor
            ``(n, channels, z, y, x)``, sizes divided by the output stride.
        """

    def learned(self, image: Tensor) -> Any:
        """Return what the loss compares: the raw output, and whatever else helps to learn it."""
        return self.logits(image)

    @abstractmethod
    def activate(self, logits: Tensor) -> Tensor:
        """Turn raw output into the fields that a decoder reads."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the fields of an image."""
        return self.activate(self.logits(image))


def start_from(layer: nn.Module, values: Sequence[float]) -> None:
    """Let a last convolution give the same values everywhere, until it has learned."""
    assert isinstance(layer, nn.Conv3d)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor(values))
