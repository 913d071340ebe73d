"""Shapes filled as the HarmonicNet paper does it, for comparison with radii.

The Delaunay simplices of the points on a shape's surface fill the convex hull of these points, so
that dents are filled too; and a triangulation takes long beside an evaluation of the radius.

References
----------
Eschweiler et al., "Spherical harmonics for shape-constrained 3D cell segmentation", 2020 (sec. 2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import LabelArray, Shape


def rasterise_delaunay(
    shape: Shape,
    spacing: tuple[float, float, float],
    centres: NDArray[np.float64],
    radii: NDArray[np.floating],
    rays: NDArray[np.float64],
) -> LabelArray:
    """Label the voxels in the Delaunay triangulation of the ends of rays.

    Parameters
    ----------
    shape, spacing, centres, radii, rays
        As for :func:`~cellrt.runtime.decoding.star.rasterise.rasterise_rays`; radii below 0 count
        as 0.

    Returns
    -------
    ndarray of int32
        1 + index of a cell, 0 for background. A voxel of several cells is of the first of them; a
        shape whose points lie in one plane has none.
    """
    from scipy.spatial import Delaunay, QhullError

    labels = np.zeros(shape, np.int32)
    size = np.asarray(spacing, np.float64)
    for cell, centre in enumerate(centres):
        ends = np.maximum(radii[cell], 0.0)[:, None] * rays
        low = np.clip(np.ceil((centre + ends.min(axis=0)) / size), 0, shape).astype(np.int64)
        high = np.clip(np.floor((centre + ends.max(axis=0)) / size) + 1, 0, shape).astype(np.int64)
        free = np.argwhere(labels[tuple(map(slice, low, high))] == 0) + low
        if not len(free):
            continue
        try:
            inside = Delaunay(ends).find_simplex(free * size - centre) >= 0
        except QhullError:  # no volume
            continue
        labels[tuple(free[inside].T)] = cell + 1
    return labels
