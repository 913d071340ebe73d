"""Cells as spherical-harmonic shapes: from a label image, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import ResourceError
from cellrt.geometry import Shape
from cellrt.limits import free_memory
from cellrt.runtime.decoding.star.directions import shipped_directions
from cellrt.runtime.decoding.star.harmonics import (
    check_order,
    fit_coefficients,
    power_per_degree,
    radius_ranges,
)
from cellrt.runtime.decoding.star.radii import FLAGS, measure_radii
from cellrt.runtime.decoding.star.rasterise import rasterise_harmonics

DEFAULT_ORDER = 5

# Labels, and how deep voxels are in their cells.
_BYTES_PER_VOXEL = 8


@dataclass(frozen=True, eq=False)
class Shapes:
    """Cells of one image, each as coefficients of spherical harmonics about its centre.

    Attributes
    ----------
    ids : ndarray of int64, shape (cells,)
        Labels, ascending as `encode` gives them.
    centres : ndarray of float64, shape (cells, 3)
        (z, y, x) in `unit`, from the centre of the image's first voxel.
    coefficients : ndarray of float64, shape (cells, (order + 1)²)
        In `unit`; ordered by degree l, then m = -l..l. The first divided by sqrt(4 pi) is the mean
        radius of the shape.
    voxel_size : (z, y, x)
        In `unit`.
    image_shape : (z, y, x)
        Voxels of the image.
    unit : {"um", "voxels"}
        Voxels, taken for cubes, where the size of a voxel is not known.
    flags : ndarray of bool, shape (cells, 5)
        The columns are :data:`cellrt.runtime.decoding.star.radii.FLAGS`.
    misplaced_share : ndarray of float64, shape (cells,)
        Volume that radii put on the wrong side of the border, as a share of the cell's volume; 0
        for a star-convex cell. What the order smoothes away comes on top.
    """

    ids: NDArray[np.int64]
    centres: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    voxel_size: tuple[float, float, float]
    image_shape: Shape
    unit: Literal["um", "voxels"]
    flags: NDArray[np.bool_]
    misplaced_share: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def order(self) -> int:
        """Highest degree."""
        return math.isqrt(self.coefficients.shape[1]) - 1

    @property
    def power(self) -> NDArray[np.float64]:
        """Power of each degree, which no rotation changes, shape (cells, order + 1)."""
        return power_per_degree(self.coefficients)

    def flagged(self, name: str) -> NDArray[np.bool_]:
        """Which cells have a flag, shape (cells,)."""
        return np.asarray(self.flags[:, FLAGS.index(name)])


def encode(
    labels: NDArray[np.integer[Any]],
    voxel_size_um: Sequence[float] | None = None,
    *,
    order: int = DEFAULT_ORDER,
) -> Shapes:
    """Describe every cell of a label image by spherical harmonics.

    Radii from the centroid along 5000 directions, and coefficients by weighted least squares, see
    :func:`cellrt.runtime.decoding.star.harmonics.fit_coefficients`.

    Parameters
    ----------
    labels : ndarray of int, shape (z, y, x)
        0 is background; ids need not be consecutive.
    voxel_size_um : (z, y, x) in µm, optional
        Without it voxels are cubes of size 1.
    order : int
        Highest degree, 1 to 11; there are (order + 1)² coefficients.

    Returns
    -------
    Shapes

    Raises
    ------
    UsageError
        The order is out of range.

    Examples
    --------
    >>> z, y, x = np.indices((31, 31, 31)) - 15
    >>> ball = (z * z + y * y + x * x <= 12**2).astype(np.int32)
    >>> shapes = encode(ball, (0.5, 0.5, 0.5))
    >>> round(float(shapes.coefficients[0, 0]) / math.sqrt(4 * math.pi), 1)
    6.0
    >>> bool((decode(shapes) == ball).mean() > 0.99)
    True
    """
    check_order(order)
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype.kind not in "iub" or labels.min(initial=0) < 0:
        raise ValueError(
            f"labels of shape {labels.shape} and type {labels.dtype}; expected integers (z, y, x), "
            "0 for background"
        )
    ids, consecutive = consecutive_labels(labels.view(np.uint8) if labels.dtype == bool else labels)
    z, y, x = (1.0, 1.0, 1.0) if voxel_size_um is None else voxel_size_um
    spacing = (float(z), float(y), float(x))
    found = measure_radii(
        consecutive,
        ids.size,
        shipped_directions(),
        spacing,
        partial(fit_coefficients, order=order),
    )
    nz, ny, nx = labels.shape
    return Shapes(
        ids=ids,
        centres=found.centres * spacing,
        coefficients=found.values.astype(np.float64),
        voxel_size=spacing,
        image_shape=(nz, ny, nx),
        unit="voxels" if voxel_size_um is None else "um",
        flags=found.flags,
        misplaced_share=found.misplaced_share,
    )


def decode(shapes: Shapes) -> NDArray[np.integer[Any]]:
    """Draw shapes into an image: a voxel is of a cell where it is nearer than the radius there.

    Where several cells claim a voxel, it goes to that in which it is deepest: whose distance from
    the centre is the smallest part of the radius in that direction. Of equals the first one in
    `shapes` takes it.

    Returns
    -------
    ndarray of int32, or int64 where ids need it, shape ``shapes.image_shape``

    Raises
    ------
    ResourceError
        The image is larger than the free memory.
    """
    memory = free_memory()
    needed = _BYTES_PER_VOXEL * math.prod(shapes.image_shape)
    if needed > memory.free:
        z, y, x = shapes.image_shape
        raise ResourceError(
            f"an image of {z} x {y} x {x} voxels takes {needed / 1e9:.3g} GB of memory and "
            f"{memory.free / 1e9:.1f} of {memory.limit / 1e9:.1f} GB are free ({memory.source}); "
            "close other programs or ask for more"
        )
    reach = radius_ranges(shapes.coefficients)[:, 1]
    labels = rasterise_harmonics(
        shapes.image_shape, shapes.voxel_size, shapes.centres, shapes.coefficients, reach
    )
    if np.array_equal(shapes.ids, np.arange(1, len(shapes) + 1)):
        return labels
    names = np.concatenate([[0], shapes.ids])
    wide = names.max() > np.iinfo(np.int32).max
    return np.asarray(names.astype(np.int64 if wide else np.int32)[labels])


def cell_ids(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Ids that occur in a label image, ascending, without 0 for background."""
    largest = int(labels.max(initial=0))
    if largest > labels.size:  # too many to keep a place for each
        ids = np.unique(labels).astype(np.int64)
        return ids[ids > 0]
    occurs = np.zeros(largest + 1, np.bool_)
    for plane in labels:
        occurs[plane] = True
    return np.flatnonzero(occurs[1:]) + 1


def consecutive_labels(
    labels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Ids of cells, ascending, and the image with 1, 2, 3, ... in their place."""
    ids = cell_ids(labels)
    if not ids.size or ids[-1] == ids.size:
        return ids, np.ascontiguousarray(labels, np.int32)
    if ids[-1] > labels.size:
        found = np.searchsorted(ids.astype(labels.dtype), labels, side="right")
        return ids, found.astype(np.int32)
    table = np.zeros(ids[-1] + 1, np.int32)
    table[ids] = np.arange(1, ids.size + 1)
    return ids, table[labels]
