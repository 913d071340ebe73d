"""How far shapes that a network predicts are from those they should be, in voxels of radius."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

INSIDE = 0.3
"""Distance map or probability from which a voxel's shape may become a cell's."""


def radius_errors(
    channels: Sequence[str], fields: NDArray[np.float32], expected: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Root mean square over all directions of the difference of radii, inside of cells.

    Harmonics are orthonormal: the mean of the squared difference over the sphere is the sum of the
    squared differences of coefficients, divided by 4 pi.

    Parameters
    ----------
    channels : sequence of str
        A map, then coefficients or radii; see `predicts_shapes`.
    fields, expected : (channels, z, y, x) float32 arrays
        Shapes in voxels.

    Returns
    -------
    (n,) float32 array
        In voxels, for each voxel that is inside of a cell by `expected`; elsewhere what a network
        says of shapes is never used.
    """
    inside = expected[0] >= INSIDE
    squares = np.square(fields[1:, inside] - expected[1:, inside]).sum(axis=0)
    directions = 4 * math.pi if channels[1].startswith("c_") else len(channels) - 1
    errors: NDArray[np.float32] = np.sqrt(squares / np.float32(directions))
    return errors
