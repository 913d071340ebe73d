"""The methods a recipe can name: one line each, and the tables that a recipe has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from cellrt.models.base import Method
from cellrt.models.cellpose2d.method import Cellpose2D
from cellrt.models.cellpose2d.tables import Cellpose2DLoss, Cellpose2DModel, Cellpose2DTargets
from cellrt.models.cellpose3d.method import Cellpose3D
from cellrt.models.cellpose3d.tables import Cellpose3DLoss, Cellpose3DModel, Cellpose3DTargets
from cellrt.models.cellseg3d.method import CellSeg3D
from cellrt.models.cellseg3d.tables import CellSeg3DLoss, CellSeg3DModel, CellSeg3DTargets
from cellrt.models.harmonic_embedding.method import HarmonicEmbeddings
from cellrt.models.harmonic_embedding.tables import HarmonicLoss, HarmonicModel, HarmonicTargets
from cellrt.models.harmonicnet.method import HarmonicNet
from cellrt.models.harmonicnet.tables import HarmonicNetLoss, HarmonicNetModel, HarmonicNetTargets
from cellrt.models.stardist3d.method import StarDist3D
from cellrt.models.stardist3d.tables import StarDist3DLoss, StarDist3DModel, StarDist3DTargets

ModelTable = Annotated[
    Cellpose3DModel
    | Cellpose2DModel
    | CellSeg3DModel
    | HarmonicModel
    | HarmonicNetModel
    | StarDist3DModel,
    Field(discriminator="method"),
]
TargetTable = Annotated[
    Cellpose3DTargets
    | Cellpose2DTargets
    | CellSeg3DTargets
    | HarmonicTargets
    | HarmonicNetTargets
    | StarDist3DTargets,
    Field(discriminator="method"),
]
LossTable = Annotated[
    Cellpose3DLoss
    | Cellpose2DLoss
    | CellSeg3DLoss
    | HarmonicLoss
    | HarmonicNetLoss
    | StarDist3DLoss,
    Field(discriminator="method"),
]

METHODS: dict[str, Callable[..., Method]] = {
    "cellpose3d": Cellpose3D,
    "cellpose2d": Cellpose2D,
    "cellseg3d": CellSeg3D,
    "harmonic_embedding": HarmonicEmbeddings,
    "harmonicnet": HarmonicNet,
    "stardist3d": StarDist3D,
}


def make_method(
    model: ModelTable, targets: TargetTable, loss: LossTable, decoder: Mapping[str, Any]
) -> Method:
    """Make the method that a recipe's ``[model]`` names; its tables are all of that method."""
    return METHODS[model.method](model, targets, loss, decoder)
