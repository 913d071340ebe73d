"""What HarmonicNet learns from a label image: how deep voxels lie, and their cell's harmonics.

Both are computed for each patch after its augmentation: turning, zooming and bending a label image
changes all coefficients of its cells.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.models.whole_cells import find_whole_cells
from cellrt.runtime.decoding.star.directions import FEWER, directions
from cellrt.runtime.decoding.star.harmonics import fit_coefficients
from cellrt.runtime.decoding.star.radii import measure_radii


def make_harmonic_targets(
    labels: npt.NDArray[Any], margin: int, *, order: int
) -> npt.NDArray[np.float32]:
    """Turn labels into a distance map and coefficients, at half resolution.

    Parameters
    ----------
    labels, margin
        As for `cellrt.models.whole_cells.find_whole_cells`.
    order : int
        Highest degree of the harmonics.

    Returns
    -------
    (1 + (order + 1)², z/2, y/2, x/2) float32 array
        Of the patch: depth as in `cellrt.models.whole_cells`, -1 where unknown; then the
        coefficients, in voxels, of the cell that the block's deepest voxel is of, about that cell's
        centroid; 0 outside of whole cells.
    """
    cells = find_whole_cells(labels, margin)
    found = measure_radii(
        cells.labels,
        cells.count,
        directions(FEWER),
        (1.0, 1.0, 1.0),
        partial(fit_coefficients, order=order),
    )
    table = np.concatenate([np.zeros((1, found.values.shape[1]), np.float32), found.values])
    return np.concatenate([cells.depth[None], np.moveaxis(table[cells.owner], -1, 0)])
