"""Cellpose2D: Cellpose3D's fields of each plane by itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from cellrt.models.cellpose3d.network import FLOW_CHANNELS, Cellpose3D
from cellrt.models.layers.unet import UNet


class Cellpose2D(Cellpose3D):
    """Planar U-Net with the four fields of `Cellpose3D`, of which the flow along z is 0.

    So one decoder serves both, and what it sees of one plane is what cells of that plane have.

    Parameters
    ----------
    widths : sequence of int
        Channels of the encoder levels, finest first.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        UNet.__init__(self, widths, FLOW_CHANNELS, planar=True)

    def logits(self, image: Tensor) -> Tensor:
        """Return the raw output, ``(n, 4, z, y, x)``, whose first channel is 0."""
        return F.pad(super().logits(image), (0, 0, 0, 0, 0, 0, 1, 0))
