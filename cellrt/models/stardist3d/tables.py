"""Tables of a recipe with method ``stardist3d``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cellrt.models.tables import WIDTHS, CommonModelTable, Table, WholeCellTargetTable


class StarDist3DModel(CommonModelTable):
    """``[model]`` of method ``stardist3d``."""

    method: Literal["stardist3d"] = "stardist3d"
    widths: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2)] = WIDTHS
    features: Annotated[int, Field(gt=0)] = 64
    """Channels of the convolution that both outputs are read from."""
    rays: Literal[36, 64, 96] = 36

    network_keys: ClassVar[tuple[str, ...]] = ("method", "widths", "features", "rays")

    @property
    def patch_multiple(self) -> int:
        """Patch sizes are multiples of the network's total stride."""
        return int(2 ** (len(self.widths) - 1))


class StarDist3DTargets(WholeCellTargetTable):
    """``[targets]`` of method ``stardist3d``."""

    method: Literal["stardist3d"] = "stardist3d"


class StarDist3DLoss(Table):
    """``[loss]`` of method ``stardist3d``: what the terms weigh beside that of the probability."""

    method: Literal["stardist3d"] = "stardist3d"
    radii_weight: Annotated[float, Field(ge=0)] = 0.2
    """Of the radii's error in voxels."""
    background_weight: Annotated[float, Field(ge=0)] = 1e-4
    """Of the radii themselves outside of cells, before `radii_weight`."""
