"""What training and export expect of every network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A fully convolutional network from one image to fields on the same grid.

    Every batch norm follows its convolution inside an ``nn.Sequential``, which is how
    `cellrt.models.layers.fold` finds it.
    """

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Exported, the network takes sizes that are multiples of this many voxels."""

    @property
    @abstractmethod
    def receptive_radius(self) -> int:
        """Largest distance in voxels at which the input can change an output voxel."""

    @property
    def halo(self) -> int:
        """Voxels to drop at inner tile faces; farther in, cells hardly change."""
        return 8

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
            ``(n, channels, z, y, x)``.
        """

    @abstractmethod
    def activate(self, logits: Tensor) -> Tensor:
        """Turn raw output into the fields that a decoder reads."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the fields of an image."""
        return self.activate(self.logits(image))
