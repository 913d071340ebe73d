"""The isotropic grid on which structures are drawn, and its sampling into slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import ResourceError, UsageError

SMALLEST_DIAMETER = 3.0
LARGEST_VOXELS = 2**31
# Cells are at most this many times as large as the longest side of their stack.
LARGEST_SHARE = 4


@dataclass(frozen=True)
class SamplingGrid:
    """How a fine, isotropic grid is cut into the slices of a stack.

    ::

        fine grid   |.|.|.|.|.|.|.|.|.|   voxel = (xy, xy, xy)
        slices          x     x     x     distance = z_step voxels of the fine grid

    Attributes
    ----------
    slices, height, width : int
        Shape of the stack.
    z_step : float
        Distance of two slices in voxels of the fine grid.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) of the stack in µm.
    """

    slices: int
    height: int
    width: int
    z_step: float
    voxel_size_um: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of the stack."""
        return self.slices, self.height, self.width

    @property
    def fine_shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of the fine grid."""
        return max(1, round(self.slices * self.z_step)), self.height, self.width

    def take_slices(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """The labels at the positions of the slices (nearest neighbour)."""
        positions = slice_positions(labels.shape[0], self.z_step, self.slices)
        return labels[np.rint(positions).astype(np.intp)]


def sampling_grid(
    shape: Sequence[int], voxel_size_um: Sequence[float], diameter_voxels: float
) -> SamplingGrid:
    """Check the size of a stack and derive its fine grid.

    Parameters
    ----------
    shape : three ints
        Slices, height and width of the stack.
    voxel_size_um : three floats
        Voxel size (z, y, x) in µm; y and x have to agree.
    diameter_voxels : float
        Mean cell diameter in voxels along y and x.

    Raises
    ------
    UsageError
        When a number makes no sense.
    ResourceError
        When the fine grid would have more than 2³¹ voxels.
    """
    if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
        raise UsageError(f"shape is {tuple(shape)}; give three whole numbers above 0 (z y x)")
    if len(voxel_size_um) != 3 or any(not (math.isfinite(v) and v > 0) for v in voxel_size_um):
        raise UsageError(
            f"voxel size is {tuple(voxel_size_um)}; give three sizes above 0 in µm (z y x)"
        )
    z, y, x = (float(v) for v in voxel_size_um)
    if abs(y - x) > 0.01 * x:
        raise UsageError(f"voxel size is {y} along y and {x} along x; both have to be the same")
    if not (math.isfinite(diameter_voxels) and diameter_voxels >= SMALLEST_DIAMETER):
        raise UsageError(
            f"cell diameter is {diameter_voxels} voxels; "
            f"give {SMALLEST_DIAMETER:g} or more, smaller cells have no shape"
        )
    if diameter_voxels > LARGEST_SHARE * max(shape):
        raise UsageError(
            f"cell diameter is {diameter_voxels:g} voxels in a stack of {tuple(shape)}; "
            f"give at most {LARGEST_SHARE} times the longest side"
        )
    grid = SamplingGrid(int(shape[0]), int(shape[1]), int(shape[2]), z / x, (z, y, x))
    voxels = math.prod(grid.fine_shape)
    if voxels > LARGEST_VOXELS:
        raise ResourceError(
            f"{voxels:.2g} voxels would have to be drawn; at most {LARGEST_VOXELS:.2g} are "
            "possible: give a smaller shape or a smaller voxel size along z"
        )
    return grid


def slice_positions(depth: int, z_step: float, slices: int | None = None) -> NDArray[np.float64]:
    """Positions of the slices along z in voxels of a fine grid of `depth` voxels."""
    count = max(1, int(depth / z_step + 1e-6)) if slices is None else slices
    return np.clip((np.arange(count) + 0.5) * z_step - 0.5, 0, depth - 1)
