"""Tables of a recipe with method ``cellseg3d``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from cellrt.models.tables import WIDTHS, CommonModelTable, CommonTargetTable, Positive, Table


class CellSeg3DModel(CommonModelTable):
    """``[model]`` of method ``cellseg3d``: its own network has one size, a U-Net any."""

    method: Literal["cellseg3d"] = "cellseg3d"
    network: Literal["3dcellsegnet", "unet"] = "3dcellsegnet"
    widths: tuple[Annotated[int, Field(gt=0)], ...] = Field((), validate_default=True)
    """Of the U-Net; those of ``cellpose3d`` where none are given."""

    network_keys: ClassVar[tuple[str, ...]] = ("method", "network", "widths")

    @property
    def patch_multiple(self) -> int:
        """The U-Net's total stride; the other network takes any size."""
        return int(2 ** (len(self.widths) - 1)) if self.widths else 1

    @field_validator("widths")
    @classmethod
    def _widths_of_the_unet(cls, widths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        unet = info.data.get("network") == "unet"
        if widths and not unet:
            raise ValueError("only network = 'unet' has widths; remove it")
        return widths or (WIDTHS if unet else ())


class CellSeg3DTargets(CommonTargetTable):
    """``[targets]`` of method ``cellseg3d``."""

    method: Literal["cellseg3d"] = "cellseg3d"
    membrane_voxels: Annotated[float, Field(ge=1, le=5)] = 1.5
    """Voxels of a cell at most this far from its border are membrane (k of the paper)."""
    weight_reach_voxels: Positive = 12.0
    """Distance from the membrane over which the weight falls; at most `margin_voxels` is exact."""
    smallest_weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Weight far from any membrane, relative to that on it."""


class CellSeg3DLoss(Table):
    """``[loss]`` of method ``cellseg3d``: the loss of the paper, or one of its ablations."""

    method: Literal["cellseg3d"] = "cellseg3d"
    kind: Literal["3dcellseg", "3dcellseg-no-weights", "dice+weights", "dice"] = "3dcellseg"
    alpha: Positive = 0.1
