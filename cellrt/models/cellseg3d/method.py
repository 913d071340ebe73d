"""Method ``cellseg3d``, made from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellrt.models.cellseg3d.tables import CellSeg3DLoss, CellSeg3DModel, CellSeg3DTargets
from cellrt.models.ground_truth import without_margin
from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor

    from cellrt.models.layers.network import Network


class CellSeg3D:
    """Background, membrane and cell interior; see `cellrt.models.cellseg3d.network`."""

    decoder = "tascan"

    def __init__(
        self,
        model: CellSeg3DModel,
        targets: CellSeg3DTargets,
        loss: CellSeg3DLoss,
        decoder: Mapping[str, Any],
    ) -> None:
        self._model, self._targets, self._loss = model, targets, loss
        self.outputs: tuple[str, ...] = CLASS_OUTPUTS
        self.decoder_parameters: dict[str, Any] = dict(decoder)

    def network(self) -> Network:
        """Return a new 3DCellSegNet, or the U-Net it is compared with."""
        from cellrt.models.cellseg3d import network

        if self._model.network == "unet":
            return network.ClassUNet(self._model.widths)
        return network.CellSeg3D()

    def targets(self, labels: npt.NDArray[Any], margin: int) -> npt.NDArray[np.float32]:
        """Return class and weight of every voxel."""
        from cellrt.models.cellseg3d.targets import make_class_targets

        table = self._targets
        targets = make_class_targets(
            labels,
            membrane_voxels=table.membrane_voxels,
            weight_reach_voxels=table.weight_reach_voxels,
            smallest_weight=table.smallest_weight,
        )
        return without_margin(targets, margin)

    def losses(self, learned: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the foreground and that of the other classes."""
        from cellrt.models.cellseg3d.loss import cellseg3d_loss

        return cellseg3d_loss(learned, targets, kind=self._loss.kind, alpha=self._loss.alpha)
