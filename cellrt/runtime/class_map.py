"""Class maps: one byte per voxel that says background, membrane or foreground (inside of a cell).

References
----------
Wang et al., "A novel deep learning-based 3D cell segmentation framework for future image-based
disease detection", Scientific Reports 12:342, 2022 (3DCellSeg; Methods).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cellrt.runtime.flow_targets import canonical_labels
from cellrt.runtime.threads import in_threads

BACKGROUND, MEMBRANE, FOREGROUND = 0, 1, 2

ClassMap = npt.NDArray[np.uint8]


def class_map_of(labels: npt.NDArray[np.integer[Any]]) -> ClassMap:
    """Class map that a perfect network would give for some cells.

    Membrane is every voxel of a cell within 1.5 voxels of a voxel outside of it: one of its 18
    neighbours across a face or an edge is not of the same cell. The volume's faces are no border.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Cells; 0 (and anything negative) is background.

    Returns
    -------
    (z, y, x) uint8 array
        `BACKGROUND`, `MEMBRANE` or `FOREGROUND`.

    Examples
    --------
    >>> import numpy as np
    >>> class_map_of(np.array([[[0, 1, 1, 1, 2, 2, 2]]]))[0, 0].tolist()
    [0, 1, 2, 1, 1, 2, 2]
    """
    cells = canonical_labels(labels)
    classes = np.empty(cells.shape, np.uint8)
    in_threads(cells.shape[0], partial(_classify, cells, classes), voxels=4 * cells.size)
    return classes


@njit(cache=True, nogil=True)
def _classify(labels: Any, classes: Any, lo: int, hi: int) -> None:
    nz, ny, nx = labels.shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if label <= 0:
                    classes[z, y, x] = BACKGROUND
                    continue
                inside = True
                for dz in range(-1, 2):
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            if dz * dz + dy * dy + dx * dx > 2:
                                continue
                            a, b, c = z + dz, y + dy, x + dx
                            if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx:
                                inside = inside and labels[a, b, c] == label
                classes[z, y, x] = FOREGROUND if inside else MEMBRANE
