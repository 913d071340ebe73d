"""Method ``harmonicnet``, made from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellrt.models.harmonicnet.tables import (
    HarmonicNetLoss,
    HarmonicNetModel,
    HarmonicNetTargets,
)
from cellrt.runtime.decoding.star.harmonics import coefficient_names

if TYPE_CHECKING:
    from torch import Tensor

    from cellrt.models.layers.network import Network


class HarmonicNet:
    """Distance to the border and harmonics of the cell; see `cellrt.models.harmonicnet.network`."""

    decoder = "star"

    def __init__(
        self,
        model: HarmonicNetModel,
        targets: HarmonicNetTargets,
        loss: HarmonicNetLoss,
        decoder: Mapping[str, Any],
    ) -> None:
        self._model, self._targets, self._loss = model, targets, loss
        self.outputs: tuple[str, ...] = ("distance", *coefficient_names(model.order))
        self.decoder_parameters: dict[str, Any] = dict(decoder)

    def network(self) -> Network:
        """Return a new HarmonicNet."""
        from cellrt.models.harmonicnet import network

        model = self._model
        return network.HarmonicNet(
            model.widths, model.head_width, len(self.outputs) - 1, model.nominal_diameter_voxels / 2
        )

    def targets(self, labels: npt.NDArray[Any], margin: int) -> npt.NDArray[np.float32]:
        """Return depth and coefficients, at half resolution."""
        from cellrt.models.harmonicnet.targets import make_harmonic_targets

        return make_harmonic_targets(labels, margin, order=self._model.order)

    def losses(self, learned: list[Tensor], targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the distance map and that of the coefficients."""
        from cellrt.models.harmonicnet.loss import harmonicnet_loss

        table = self._loss
        return harmonicnet_loss(
            learned,
            targets,
            nominal_radius=self._model.nominal_diameter_voxels / 2,
            distance_weight=table.distance_weight,
            harmonics_weight=table.harmonics_weight,
            scale_weights=table.scale_weights,
            shape_error=table.shape_error,
        )
