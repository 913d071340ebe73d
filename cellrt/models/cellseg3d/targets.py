"""What 3DCellSeg learns from a label image: the class of every voxel, and what it weighs.

Both are computed for each patch after its augmentation: zoom and bending change distances, and
maps resampled from the whole stack would be neither exact nor sharp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.models.ground_truth import UNKNOWN
from cellrt.runtime.decoding.classes.class_map import FOREGROUND, MEMBRANE, ClassMap, class_map_of
from cellrt.runtime.decoding.labels.distance import squared_distance

FloatArray = npt.NDArray[np.float32]


def make_class_targets(
    labels: npt.NDArray[Any],
    *,
    membrane_voxels: float = 1.5,
    weight_reach_voxels: float = 12.0,
    smallest_weight: float = 0.5,
) -> FloatArray:
    """Turn labels into a class and a weight per voxel.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Cells above 0, background 0, unknown -1.
    membrane_voxels : float
        Voxels of a cell at most this far from its border are membrane; k of the paper.
    weight_reach_voxels, smallest_weight : float
        See `membrane_weights`.

    Returns
    -------
    (2, z, y, x) float32 array
        Class as in `cellrt.runtime.decoding.classes.class_map`, -1 where unknown; and the weight.
    """
    classes = class_map_of(labels, membrane_voxels)
    targets = np.empty((2, *labels.shape), np.float32)
    targets[0] = classes
    targets[0][labels == UNKNOWN] = UNKNOWN
    targets[1] = membrane_weights(classes, weight_reach_voxels, smallest_weight)
    return targets


def membrane_weights(classes: ClassMap, reach_voxels: float, smallest: float) -> FloatArray:
    """Weigh voxels by their distance to the membrane: the reverse distance transform.

    The paper scales by the largest distance in the stack, so that one large cell would change
    the weights of all others; here the scale is a length.

    Parameters
    ----------
    classes : (z, y, x) uint8 array
        Class map.
    reach_voxels : float
        Distance over which the weight falls, from the voxels beside the membrane on.
    smallest : float
        Weight from there on, in (0, 1].

    Returns
    -------
    (z, y, x) float32 array
        1 on the membrane and beside it, then falling linearly to `smallest`.
    """
    elsewhere = np.where(classes == MEMBRANE, np.uint8(MEMBRANE), np.uint8(FOREGROUND))
    distance = np.sqrt(squared_distance(elsewhere), dtype=np.float32)
    fallen = np.clip((distance - 1) / np.float32(reach_voxels), 0, 1)
    return np.asarray(1 - np.float32(1 - smallest) * fallen, np.float32)
