"""TASCAN: instances from a class map, by clustering supervoxels that touch in a large area.

The steps, each in its own module:

1. ``labels.distance``: how far each foreground voxel is from what is not foreground;
2. ``supervoxels``: which maximum of that it climbs to, its supervoxel;
3. ``touching``: which supervoxels are one cell;
4. ``clean_up``: membranes and leftover foreground go to the nearest cell.

No step depends on the number of cells. Beyond the class map all of them work in the four bytes per
voxel that become the labels.

References
----------
Wang et al., "A novel deep learning-based 3D cell segmentation framework for future image-based
disease detection", Scientific Reports 12:342, 2022 (3DCellSeg; "TASCAN for instance segmentation").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.runtime.decoding.classes.class_map import ClassMap
from cellrt.runtime.decoding.classes.clean_up import (
    CleanUpParameters,
    check_class_map,
    clean_up,
)
from cellrt.runtime.decoding.classes.supervoxels import climb_to_maxima
from cellrt.runtime.decoding.classes.touching import merge_supervoxels, touching_areas
from cellrt.runtime.decoding.labels.distance import squared_distance
from cellrt.runtime.decoding.labels.regions import relabel


@dataclass(frozen=True)
class TascanParameters(CleanUpParameters):
    """How a class map becomes instances, besides the clean-up.

    Attributes
    ----------
    min_area : int
        Two supervoxels that touch in at least this many voxel faces are one cell. The paper's one
        hyperparameter: above the size of holes in predicted membranes, below that of a cell's
        cross-section.

    Raises
    ------
    InputError
        A value outside of its range; the message names it.
    """

    min_area: int = 30

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.min_area != int(self.min_area) or self.min_area < 1:
            raise InputError(f"min_area is {self.min_area}; expected a whole number of at least 1")
        super().__post_init__()


def decode_supervoxels(classes: ClassMap, parameters: TascanParameters) -> npt.NDArray[np.int32]:
    """Label the cells of a class map.

    Parameters
    ----------
    classes : (z, y, x) uint8 array
        0 background, 1 membrane, 2 foreground; see
        :mod:`cellrt.runtime.decoding.classes.class_map`.
    parameters : TascanParameters

    Returns
    -------
    (z, y, x) int32 array
        0 for background, cells 1 to n in the order of their first voxel; no cells where there is
        no foreground.

    Raises
    ------
    InputError
        An array of another shape or type.

    Examples
    --------
    >>> import numpy as np
    >>> from cellrt.runtime.decoding.classes.class_map import class_map_of
    >>> cells = np.repeat(np.int32([[[1, 2]]]), 12, axis=2).repeat(12, 0).repeat(12, 1)
    >>> labels = decode_supervoxels(class_map_of(cells), TascanParameters())
    >>> bool((labels == cells).all())
    True
    """
    check_class_map(classes)
    if classes.size == 0:
        return np.zeros(classes.shape, np.int32)
    labels = squared_distance(classes)
    count = climb_to_maxima(labels)
    relabel(labels, merge_supervoxels(touching_areas(labels, count), parameters.min_area))
    clean_up(labels, classes, parameters)
    return labels
