"""Tables of a recipe that depend on its method: ``[model]``, ``[targets]`` and ``[loss]``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

WIDTHS = (16, 32, 64, 128)
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table of a recipe: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CommonModelTable(Table):
    """``[model]``: the grid that a network of any method works on."""

    nominal_diameter_voxels: Positive = 16.0
    voxel_size_um: Positive = 0.5
    """First guess of the scale at inference when nobody gives a cell diameter."""
    percentiles: tuple[float, float] = (1.0, 99.8)
    two_dimensional: bool = False
    """Whether single slices are accepted; say so only where it was measured."""
    stored_weights: Literal["fp32", "fp16"] = "fp32"
    """Precision of the weights in the exported file; fp16 halves it, and rounds them once."""

    network_keys: ClassVar[tuple[str, ...]] = ("method",)
    """What decides the weights' shapes: where these are equal, a run can start from another."""

    @property
    def patch_multiple(self) -> int:
        """Patch sizes are multiples of this many voxels."""
        return 1


class CommonTargetTable(Table):
    """``[targets]``: what a network of any method learns from a label image."""

    margin_voxels: Annotated[int, Field(ge=0)] = 12
    """Labels are seen this far beyond the patch, so that cut cells are known as a whole."""


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


ModelTable = Annotated[Cellpose3DModel | CellSeg3DModel, Field(discriminator="method")]
TargetTable = Annotated[Cellpose3DTargets | CellSeg3DTargets, Field(discriminator="method")]
LossTable = Annotated[Cellpose3DLoss | CellSeg3DLoss, Field(discriminator="method")]
