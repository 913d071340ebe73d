"""Clean-up of label volumes: one connected piece per cell, labels without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def keep_largest_components(
    labels: NDArray[np.int32], *, min_voxels: int = 1, fill: bool = False
) -> NDArray[np.int32]:
    """Keep the largest 6-connected component of every label and renumber to 1..n.

    Parameters
    ----------
    labels : ndarray of int32, (z, y, x)
    min_voxels : int
        Cells whose largest component is smaller vanish.
    fill : bool
        Give removed voxels to the nearest remaining cell instead of background,
        for tissue without gaps.

    Returns
    -------
    ndarray of int32, (z, y, x)
        A new array, labels in the order of the old ones.
    """
    out = np.zeros_like(labels)
    count = 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == label
        pieces, n = ndimage.label(mask)
        if n > 1:
            mask = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        if np.count_nonzero(mask) < min_voxels:
            continue
        count += 1
        out[box][mask] = count
    if fill and count:
        lost = (labels > 0) & (out == 0)
        if lost.any():
            nearest = ndimage.distance_transform_edt(
                out == 0, return_distances=False, return_indices=True
            )
            out[lost] = out[tuple(index[lost] for index in nearest)]
    return out
