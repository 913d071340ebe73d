"""What the tables of every method have in common: ``[model]`` and ``[targets]`` of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

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
    two_dimensional: bool = False
    """Whether single slices are accepted; say so only where it was measured."""
    stored_weights: Literal["fp32", "fp16"] = "fp32"
    """Precision of the weights in the exported file; fp16 halves it, and rounds them once."""

    planar: ClassVar[bool] = False
    """Whether networks of this method look at single planes, and are trained on such."""
    network_keys: ClassVar[tuple[str, ...]] = ("method",)
    """What decides the weights' shapes: where these are equal, a run can start from another."""
    fitted_keys: ClassVar[tuple[str, ...]] = ()
    """What `fitted` fills in."""

    @property
    def patch_multiple(self) -> int:
        """Patch sizes are multiples of this many voxels."""
        return 1

    def fitted(
        self,
        labels: Iterable[npt.NDArray[Any]],
        zoom: tuple[float, float],
        seed: int,
        report: Callable[[str], None],
    ) -> Self:
        """Return the table with what is found in the training data before a network learns.

        Parameters
        ----------
        labels : iterable of (z, y, x) integer arrays
            Of the training stacks, on the model's grid.
        zoom : (float, float)
            Range of sizes that augmentation shows.
        seed : int
        report : callable
            Told a line of what was found.
        """
        return self


class CommonTargetTable(Table):
    """``[targets]``: what a network of any method learns from a label image."""

    margin_voxels: Annotated[int, Field(ge=0)] = 12
    """Labels are seen this far beyond the patch, so that cut cells are known as a whole."""


class WholeCellTargetTable(CommonTargetTable):
    """``[targets]`` of methods that describe whole cells; see `cellrt.models.whole_cells`."""

    margin_voxels: Annotated[int, Field(ge=1)] = 20
    """Labels are seen this far beyond the patch; cells that go on beyond do not count."""
