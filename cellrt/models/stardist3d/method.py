"""Method ``stardist3d``, made from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellrt.models.stardist3d.tables import StarDist3DLoss, StarDist3DModel, StarDist3DTargets

if TYPE_CHECKING:
    from torch import Tensor

    from cellrt.models.layers.network import Network


class StarDist3D:
    """Object probability and radii along rays; see `cellrt.models.stardist3d.network`."""

    decoder = "star"

    def __init__(
        self,
        model: StarDist3DModel,
        targets: StarDist3DTargets,
        loss: StarDist3DLoss,
        decoder: Mapping[str, Any],
    ) -> None:
        self._model, self._targets, self._loss = model, targets, loss
        radii = (f"radius_{ray:03d}" for ray in range(model.rays))
        self.outputs: tuple[str, ...] = ("probability", *radii)
        self.decoder_parameters: dict[str, Any] = dict(decoder)

    def network(self) -> Network:
        """Return a new U-Net."""
        from cellrt.models.stardist3d import network

        model = self._model
        return network.StarDist3D(
            model.widths, model.features, model.rays, model.nominal_diameter_voxels / 2
        )

    def targets(self, labels: npt.NDArray[Any], margin: int) -> npt.NDArray[np.float32]:
        """Return probability and radii, at half resolution."""
        from cellrt.models.stardist3d.targets import make_star_targets

        return make_star_targets(labels, margin, rays=self._model.rays)

    def losses(self, learned: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the probability and that of the radii."""
        from cellrt.models.stardist3d.loss import stardist3d_loss

        table = self._loss
        return stardist3d_loss(
            learned,
            targets,
            nominal_radius=self._model.nominal_diameter_voxels / 2,
            radii_weight=table.radii_weight,
            background_weight=table.background_weight,
        )
