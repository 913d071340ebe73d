"""Tables of a recipe with method ``cellpose2d``: those of ``cellpose3d``, for single planes."""

from __future__ import annotations

from typing import ClassVar, Literal

from cellrt.models.cellpose3d.tables import Cellpose3DLoss, Cellpose3DModel, Cellpose3DTargets


class Cellpose2DModel(Cellpose3DModel):
    """``[model]`` of method ``cellpose2d``."""

    method: Literal["cellpose2d"] = "cellpose2d"  # type: ignore[assignment]
    two_dimensional: Literal[True] = True
    planar: ClassVar[bool] = True


class Cellpose2DTargets(Cellpose3DTargets):
    """``[targets]`` of method ``cellpose2d``."""

    method: Literal["cellpose2d"] = "cellpose2d"  # type: ignore[assignment]


class Cellpose2DLoss(Cellpose3DLoss):
    """``[loss]`` of method ``cellpose2d``."""

    method: Literal["cellpose2d"] = "cellpose2d"  # type: ignore[assignment]
