"""The methods a recipe can name: network, targets, loss, and which decoder reads the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cellrt.models.layers.network import Network
from cellrt.training.method_tables import (
    Cellpose3DLoss,
    Cellpose3DModel,
    Cellpose3DTargets,
    CellSeg3DLoss,
    CellSeg3DModel,
    CellSeg3DTargets,
)
from cellrt.training.recipe import Recipe


class Method(Protocol):
    """A method with the settings of one recipe.

    Attributes
    ----------
    decoder : str
        Decoder of the runtime that turns the outputs into labels.
    outputs : tuple of str
        What the network's channels are.
    decoder_parameters : dict
        The recipe's ``[decoder]``, and what the decoder must know about the targets.
    """

    decoder: str
    outputs: tuple[str, ...]
    decoder_parameters: dict[str, Any]

    def network(self) -> Network:
        """Return a new network."""
        ...

    def targets(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn labels (z, y, x) into target fields (channels, z, y, x)."""
        ...

    def losses(self, logits: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and the parts it is made of, as scalars."""
        ...


def method_of(recipe: Recipe) -> Method:
    """Return the method that a recipe names."""
    methods: dict[str, Callable[[Recipe], Method]] = {
        "cellpose3d": Cellpose3D,
        "cellseg3d": CellSeg3D,
    }
    return methods[recipe.model.method](recipe)


class Cellpose3D:
    """Flows towards the cells' centres and foreground; see `cellrt.models.cellpose3d.network`."""

    decoder = "flows"

    def __init__(self, recipe: Recipe) -> None:
        from cellrt.runtime.decoding.flows.decoder import FLOW_OUTPUTS

        assert isinstance(recipe.model, Cellpose3DModel)
        assert isinstance(recipe.targets, Cellpose3DTargets)
        assert isinstance(recipe.loss, Cellpose3DLoss)
        self._widths, self._targets, self._loss = recipe.model.widths, recipe.targets, recipe.loss
        self.outputs: tuple[str, ...] = FLOW_OUTPUTS
        self.decoder_parameters: dict[str, Any] = {"target": recipe.targets.flow, **recipe.decoder}

    def network(self) -> Network:
        """Return a new U-Net."""
        from cellrt.models.cellpose3d import network as cellpose3d

        return cellpose3d.Cellpose3D(self._widths)

    def targets(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return flow z, y, x and foreground."""
        from cellrt.models.cellpose3d.targets import make_targets

        table = self._targets
        return make_targets(labels, flow=table.flow, boundary_voxels=table.boundary_voxels)

    def losses(self, logits: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the foreground's and the flows' loss."""
        from cellrt.models.cellpose3d.targets import cellpose3d_loss

        table = self._loss
        return cellpose3d_loss(
            logits, targets, labels, flow_weight=table.flow_weight, foreground=table.foreground
        )


class CellSeg3D:
    """Background, membrane and cell interior; see `cellrt.models.cellseg3d.network`."""

    decoder = "tascan"

    def __init__(self, recipe: Recipe) -> None:
        from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS

        assert isinstance(recipe.model, CellSeg3DModel)
        assert isinstance(recipe.targets, CellSeg3DTargets)
        assert isinstance(recipe.loss, CellSeg3DLoss)
        self._model, self._targets, self._loss = recipe.model, recipe.targets, recipe.loss
        self.outputs: tuple[str, ...] = CLASS_OUTPUTS
        self.decoder_parameters = dict(recipe.decoder)

    def network(self) -> Network:
        """Return a new 3DCellSegNet, or the U-Net it is compared with."""
        from cellrt.models.cellseg3d import network as cellseg3d

        if self._model.network == "unet":
            return cellseg3d.ClassUNet(self._model.widths)
        return cellseg3d.CellSeg3D()

    def targets(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return class and weight of every voxel."""
        from cellrt.models.cellseg3d.targets import make_class_targets

        table = self._targets
        return make_class_targets(
            labels,
            membrane_voxels=table.membrane_voxels,
            weight_reach_voxels=table.weight_reach_voxels,
            smallest_weight=table.smallest_weight,
        )

    def losses(self, logits: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the foreground and that of the other classes."""
        from cellrt.models.cellseg3d.loss import cellseg3d_loss

        return cellseg3d_loss(logits, targets, kind=self._loss.kind, alpha=self._loss.alpha)
