"""Method ``cellpose3d``, made from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellrt.models.cellpose3d.tables import Cellpose3DLoss, Cellpose3DModel, Cellpose3DTargets
from cellrt.models.ground_truth import without_margin
from cellrt.runtime.model.card import FLOW_OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor

    from cellrt.models.layers.network import Network


class Cellpose3D:
    """Flows towards the cells' centres and foreground; see `cellrt.models.cellpose3d.network`."""

    decoder = "flows"

    def __init__(
        self,
        model: Cellpose3DModel,
        targets: Cellpose3DTargets,
        loss: Cellpose3DLoss,
        decoder: Mapping[str, Any],
    ) -> None:
        self._model, self._targets, self._loss = model, targets, loss
        self.outputs: tuple[str, ...] = FLOW_OUTPUTS
        self.decoder_parameters: dict[str, Any] = {"target": targets.flow, **decoder}

    def network(self) -> Network:
        """Return a new U-Net."""
        from cellrt.models.cellpose3d import network

        return network.Cellpose3D(self._model.widths)

    def targets(self, labels: npt.NDArray[Any], margin: int) -> npt.NDArray[np.float32]:
        """Return flow z, y, x and foreground."""
        from cellrt.models.cellpose3d.targets import make_targets

        table = self._targets
        targets = make_targets(labels, flow=table.flow, boundary_voxels=table.boundary_voxels)
        return without_margin(targets, margin, planar=self._model.planar)

    def losses(self, learned: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the foreground's and the flows' loss."""
        from cellrt.models.cellpose3d.targets import cellpose3d_loss

        table = self._loss
        return cellpose3d_loss(
            learned, targets, labels, flow_weight=table.flow_weight, foreground=table.foreground
        )
