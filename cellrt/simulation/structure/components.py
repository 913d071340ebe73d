"""Clean-up of label volumes: one connected piece per cell, labels without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.compiled import compiled


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
        Give removed voxels to a neighbouring cell instead of background, for
        tissue without gaps. What touches no cell becomes background.

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
        _grow(out, np.argwhere((labels > 0) & (out == 0)))
    return out


@compiled
def _grow(labels: NDArray[np.int32], lost: NDArray[np.int64]) -> None:
    """Give lost voxels to a face neighbour's cell, layer by layer, which keeps cells connected."""
    found = np.zeros(len(lost), np.int32)
    changed = True
    while changed:
        changed = False
        for i in range(len(lost)):
            z, y, x = lost[i]
            if labels[z, y, x] != 0:
                continue
            for axis in range(3):
                for step in (-1, 1):
                    u = z + (step if axis == 0 else 0)
                    v = y + (step if axis == 1 else 0)
                    w = x + (step if axis == 2 else 0)
                    if u < 0 or v < 0 or w < 0:
                        continue
                    if u >= labels.shape[0] or v >= labels.shape[1] or w >= labels.shape[2]:
                        continue
                    if labels[u, v, w] > 0:
                        found[i] = labels[u, v, w]
        for i in range(len(lost)):
            if found[i] > 0:
                labels[lost[i, 0], lost[i, 1], lost[i, 2]] = found[i]
                found[i] = 0
                changed = True
