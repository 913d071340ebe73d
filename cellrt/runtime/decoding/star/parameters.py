"""How shapes become cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cellrt.errors import InputError
from cellrt.runtime.decoding.parameters import DRAWING


@dataclass(frozen=True)
class StarParameters:
    """How shapes become cells; lengths are in voxels of the model's grid.

    Attributes
    ----------
    threshold : float
        A voxel proposes a shape where its distance map or probability is above this.
    min_distance : float
        Of harmonic shapes, the one with the highest distance map in a box that reaches so far from
        its centre stays.
    max_overlap : float
        A shape goes where it shares more than this part of its volume, or of the other's if that is
        smaller, with one of a higher score.
    min_volume : int
        Cells of fewer voxels go.
    fit : bool
        Let the map decide where cells end, within reach of their shapes.
    fit_reach : float
        How far a cell may go beyond its shape then, as a multiple of the radius.
    fit_depth : float
        How far from the border, by the map, a voxel must be to belong to a cell then.
    fill : {"radius", "delaunay"}
        What a shape fills: what is within its radius in every direction, or the Delaunay simplices
        of its surface, for comparison. These fill dents too and take long.
    """

    threshold: float = 0.5
    min_distance: float = 5.0
    max_overlap: float = 0.3
    min_volume: int = 1
    fit: bool = field(default=False, metadata=DRAWING)
    fit_reach: float = field(default=1.5, metadata=DRAWING)
    fit_depth: float = field(default=0.55, metadata=DRAWING)
    fill: Literal["radius", "delaunay"] = field(default="radius", metadata=DRAWING)

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, low, high in (
            ("threshold", 0.0, 1.0),
            ("min_distance", 0.0, 1000.0),
            ("max_overlap", 0.0, 1.0),
            ("min_volume", 0, 1 << 31),
            ("fit_reach", 1.0, 4.0),
            ("fit_depth", 0.0, 100.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; expected {low:g} to {high:g}")
        if self.fit and self.fill == "delaunay":
            raise InputError(
                "fit is true and fill is delaunay, whose simplices know no radius to compare with; "
                "give fit=false, or fill=radius"
            )
