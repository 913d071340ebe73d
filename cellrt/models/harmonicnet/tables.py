"""Tables of a recipe with method ``harmonicnet``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cellrt.models.tables import WIDTHS, CommonModelTable, Table, WholeCellTargetTable
from cellrt.runtime.decoding.star.harmonics import HIGHEST_ORDER

Weight = Annotated[float, Field(ge=0)]
ShapeError = Literal["coefficients", "radii"]


class HarmonicNetModel(CommonModelTable):
    """``[model]`` of method ``harmonicnet``."""

    method: Literal["harmonicnet"] = "harmonicnet"
    widths: Annotated[
        tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=4, max_length=4)
    ] = WIDTHS
    """Channels at strides 1, 2, 4 and 8; the published network is far wider."""
    head_width: Annotated[int, Field(ge=2)] = 32
    """Channels inside of the heads for the harmonics; those for the distance have half of them."""
    order: Annotated[int, Field(ge=1, le=HIGHEST_ORDER)] = 5
    """Highest degree of the harmonics, of which there are (order + 1)²."""

    network_keys: ClassVar[tuple[str, ...]] = ("method", "widths", "head_width", "order")

    @property
    def patch_multiple(self) -> int:
        """Patch sizes are multiples of the network's total stride."""
        return int(2 ** (len(self.widths) - 1))


class HarmonicNetTargets(WholeCellTargetTable):
    """``[targets]`` of method ``harmonicnet``."""

    method: Literal["harmonicnet"] = "harmonicnet"


class HarmonicNetLoss(Table):
    """``[loss]`` of method ``harmonicnet``: eq. 4 to 6 of the paper."""

    method: Literal["harmonicnet"] = "harmonicnet"
    distance_weight: Weight = 0.5
    harmonics_weight: Weight = 0.5
    scale_weights: tuple[Weight, Weight, Weight] = (1.0, 2.0, 3.0)
    """Of the predictions at strides 8, 4 and 2."""
    shape_error: ShapeError = "coefficients"
    """What is summed up of a shape: the paper's coefficients, or radii along directions."""
