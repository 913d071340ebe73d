"""What StarDist learns from a label image: how deep voxels lie, and how far the border is.

Both are computed for each patch after its augmentation, which changes all distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.models.whole_cells import STRIDE, find_whole_cells
from cellrt.runtime.decoding.star.directions import directions
from cellrt.threads import in_threads

# Voxels that a ray meets: what threads are worth.
_VOXELS_PER_RAY = 8


def make_star_targets(
    labels: npt.NDArray[Any], margin: int, *, rays: int
) -> npt.NDArray[np.float32]:
    """Turn labels into object probability and radii, at half resolution.

    Parameters
    ----------
    labels, margin
        As for `cellrt.models.whole_cells.find_whole_cells`.
    rays : int
        Directions along which radii are measured.

    Returns
    -------
    (1 + rays, z/2, y/2, x/2) float32 array
        Of the patch: depth as in `cellrt.models.whole_cells`, -1 where unknown; then the distance
        in voxels, from the middle of each block along each ray, to the border of the cell that the
        block's deepest voxel is of; 0 outside of whole cells.
    """
    cells = find_whole_cells(labels, margin)
    targets = np.zeros((1 + rays, *cells.depth.shape), np.float32)
    targets[0] = cells.depth
    along = directions(rays)
    signs = np.where(along > 0, 1, -1)
    # A ray that runs along a face never crosses it.
    steps = np.divide(1.0, np.abs(along), out=np.full(along.shape, 1e30), where=along != 0)

    def planes(lo: int, hi: int) -> None:
        _walk(cells.labels, cells.owner, margin, STRIDE, signs, steps, targets, lo, hi)

    in_threads(len(cells.owner), planes, voxels=cells.owner.size * rays * _VOXELS_PER_RAY)
    return targets


@compiled
def _walk(
    labels: Any,
    owner: Any,
    margin: int,
    stride: int,
    signs: Any,
    steps: Any,
    targets: Any,
    lo: int,
    hi: int,
) -> None:
    """Walk along all rays, from face to face, until they leave their cell for the first time.

    Whole cells end before the labels do.
    """
    here, following = np.empty(3, np.int64), np.empty(3)
    for z in range(lo, hi):
        for y in range(owner.shape[1]):
            for x in range(owner.shape[2]):
                cell = owner[z, y, x]
                if cell == 0:
                    continue
                for ray in range(signs.shape[0]):
                    # Rays start in a corner of the first voxel they meet.
                    here[0] = margin + stride * z + (signs[ray, 0] > 0)
                    here[1] = margin + stride * y + (signs[ray, 1] > 0)
                    here[2] = margin + stride * x + (signs[ray, 2] > 0)
                    for axis in range(3):
                        following[axis] = steps[ray, axis]
                    length = 0.0
                    while labels[here[0], here[1], here[2]] == cell:
                        axis = 0 if following[0] < following[1] else 1
                        if following[2] < following[axis]:
                            axis = 2
                        length = following[axis]
                        following[axis] += steps[ray, axis]
                        here[axis] += signs[ray, axis]
                    targets[1 + ray, z, y, x] = length
