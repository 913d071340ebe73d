"""What every decoder of class maps does in the end: small cells, membranes and leftovers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.runtime.decoding.base import check_size
from cellrt.runtime.decoding.classes.class_map import ClassMap
from cellrt.runtime.decoding.labels.fill_nearest import LONGEST_REACH, fill_from_nearest
from cellrt.runtime.decoding.labels.regions import count_regions, equivalent_radius, relabel


@dataclass(frozen=True, kw_only=True)
class CleanUpParameters:
    """What becomes of small cells and membranes; lengths are in voxels of the map's own grid.

    Attributes
    ----------
    min_radius : float
        Cells below the volume of the ball of this radius are dropped before membranes are given to
        cells; their voxels are leftover foreground. The paper drops none.
    reach : float
        Leftover foreground and membrane farther than this from every cell become background; at
        most 63. The paper has no such limit.

    Raises
    ------
    InputError
        A value outside of its range; the message names it.
    """

    min_radius: float = 0.0
    reach: float = 32.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not (math.isfinite(self.min_radius) and self.min_radius >= 0):
            raise InputError(f"min_radius is {self.min_radius}; expected a number of at least 0")
        if not 0 <= self.reach <= LONGEST_REACH:
            raise InputError(
                f"reach is {self.reach}; expected a number from 0 to {LONGEST_REACH:g}"
            )


def clean_up(
    labels: npt.NDArray[np.int32], classes: ClassMap, parameters: CleanUpParameters
) -> None:
    """Drop small cells, give membranes and leftovers to the rest and number the cells, in place.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Cells, 0 elsewhere.
    classes : (z, y, x) uint8 array
        The class map they come from.
    parameters : CleanUpParameters
    """
    found = count_regions(labels, int(labels.max(initial=0)))
    radius = equivalent_radius(found.volumes, labels.shape)
    table = found.numbered(radius >= parameters.min_radius)
    relabel(labels, table)
    count = int(table.max())
    if count:
        fill_from_nearest(labels, classes, found.relabelled(table).volumes, parameters.reach)
        # A cell that has grown may begin earlier than those before it.
        relabel(labels, count_regions(labels, count).numbered(np.ones(count + 1, np.bool_)))


def check_class_map(classes: ClassMap) -> None:
    """Raise InputError for anything but a (z, y, x) uint8 array of less than 2**31 voxels."""
    if classes.ndim != 3 or classes.dtype != np.uint8:
        raise InputError(
            f"the class map has shape {classes.shape} and type {classes.dtype}; "
            "expected a three-dimensional uint8 array (z, y, x)"
        )
    check_size(classes.shape)
