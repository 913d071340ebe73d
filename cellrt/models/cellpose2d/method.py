"""Method ``cellpose2d``, made from its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellrt.models.cellpose3d.method import Cellpose3D

if TYPE_CHECKING:
    from cellrt.models.layers.network import Network


class Cellpose2D(Cellpose3D):
    """Cellpose3D's targets and loss of one plane, whose flow along z is 0, and a planar network."""

    def network(self) -> Network:
        """Return a new planar U-Net."""
        from cellrt.models.cellpose2d import network

        return network.Cellpose2D(self._model.widths)
