"""Tables of a recipe with method ``cellpose3d``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cellrt.models.tables import WIDTHS, CommonModelTable, CommonTargetTable, Table


class Cellpose3DModel(CommonModelTable):
    """``[model]`` of method ``cellpose3d``."""

    method: Literal["cellpose3d"] = "cellpose3d"
    widths: tuple[Annotated[int, Field(gt=0)], ...] = WIDTHS

    network_keys: ClassVar[tuple[str, ...]] = ("method", "widths")

    @property
    def patch_multiple(self) -> int:
        """Patch sizes are multiples of the network's total stride."""
        return int(2 ** (len(self.widths) - 1))


class Cellpose3DTargets(CommonTargetTable):
    """``[targets]`` of method ``cellpose3d``."""

    method: Literal["cellpose3d"] = "cellpose3d"
    flow: Literal["tanh", "centroid", "heat"] = "tanh"
    boundary_voxels: Annotated[int, Field(ge=0, le=4)] = 0
    """Foreground voxels this close to another label count as wall; 0 for nuclei."""


class Cellpose3DLoss(Table):
    """``[loss]`` of method ``cellpose3d``: foreground term, and the flows' weight against it."""

    method: Literal["cellpose3d"] = "cellpose3d"
    foreground: Literal["bce", "l1"] = "bce"
    flow_weight: Annotated[float, Field(ge=0)] = 4.0
