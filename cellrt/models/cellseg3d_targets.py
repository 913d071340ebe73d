"""What 3DCellSeg learns from a label image: the class of every voxel, and what it weighs.

Both are computed for each patch after its augmentation: zoom and bending change distances, and
a map resampled from the whole stack would be neither exact nor of one voxel's sharpness.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.models.cellseg3d import CLASSES
from cellrt.models.ground_truth import UNKNOWN
from cellrt.runtime.threads import in_threads

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


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
        Index into ``CLASSES``, -1 where unknown; and the weight.
    """
    labels = np.ascontiguousarray(labels, np.int32)
    membrane = near_cell_border(labels, membrane_voxels)
    targets = np.empty((2, *labels.shape), np.float32)
    targets[0] = np.where(labels > 0, CLASSES.index("foreground"), CLASSES.index("background"))
    targets[0][membrane] = CLASSES.index("membrane")
    targets[0][labels == UNKNOWN] = UNKNOWN
    targets[1] = membrane_weights(membrane, weight_reach_voxels, smallest_weight)
    return targets


def near_cell_border(labels: npt.NDArray[Any], distance_voxels: float) -> BoolArray:
    """Mark voxels of cells within a Euclidean distance of a voxel that is not of their cell.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Unknown voxels (-1) and what lies beyond the array are nobody's border.
    distance_voxels : float
        Between voxel centres; 1.5 takes the 18 nearest neighbours into account.

    Returns
    -------
    (z, y, x) bool array
    """
    labels = np.ascontiguousarray(labels, np.int32)
    near = np.empty(labels.shape, np.bool_)
    offsets = _offsets_within(distance_voxels)
    in_threads(len(labels), partial(_near_border, labels, offsets, near), voxels=labels.size)
    return near


def membrane_weights(membrane: BoolArray, reach_voxels: float, smallest: float) -> FloatArray:
    """Weigh voxels by their distance to the membrane: the reverse distance transform.

    The paper scales by the largest distance in the stack, so that one large cell would change
    the weights of all others; here the scale is a length.

    Parameters
    ----------
    membrane : (z, y, x) bool array
    reach_voxels : float
        Distance over which the weight falls, from the voxels beside the membrane on.
    smallest : float
        Weight from there on, in (0, 1].

    Returns
    -------
    (z, y, x) float32 array
        1 on the membrane and beside it, then falling linearly to `smallest`.
    """
    from scipy import ndimage

    if not membrane.any():
        return np.full(membrane.shape, smallest, np.float32)
    distance = ndimage.distance_transform_edt(~membrane)
    fallen = np.clip((distance - 1.0) / reach_voxels, 0.0, 1.0)
    return np.asarray(1.0 - (1.0 - smallest) * fallen, np.float32)


def _offsets_within(distance: float) -> npt.NDArray[np.int64]:
    """Steps to all voxels within a distance, nearest first, because those decide most often."""
    reach = range(-int(distance), int(distance) + 1)
    steps = [s for s in product(reach, reach, reach) if 0 < sum(c * c for c in s) <= distance**2]
    steps.sort(key=lambda s: sum(c * c for c in s))
    return np.array(steps, np.int64).reshape(-1, 3)


@njit(cache=True, nogil=True)
def _near_border(labels: Any, offsets: Any, near: Any, lo: int, hi: int) -> None:
    nz, ny, nx = labels.shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                found = False
                if label > 0:
                    for k in range(offsets.shape[0]):
                        u, v, w = z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]
                        if u < 0 or v < 0 or w < 0 or u >= nz or v >= ny or w >= nx:
                            continue
                        other = labels[u, v, w]
                        if other != label and other >= 0:
                            found = True
                            break
                near[z, y, x] = found
