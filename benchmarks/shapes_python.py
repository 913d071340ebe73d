"""The published post-processing of shapes as one writes or calls it in Python, for comparison.

HarmonicNet's: peaks of the enlarged distance map, mean coefficients around each, and the Delaunay
simplices of the surface's points, with NumPy, SciPy and scikit-image. StarDist's is that of the
package ``stardist``. No kernel of cellrt is used.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, Delaunay
from scipy.special import sph_harm_y
from threadpoolctl import threadpool_limits

from cellrt.runtime.decoding.star.directions import FEWER, directions
from cellrt.runtime.decoding.star.parameters import StarParameters
from cellrt.runtime.model.card import ModelCard

# Voxels of the network's output around a peak, along each axis: 5 of the image, as published.
AVERAGED = 3


def harmonic_cells(
    fields: np.ndarray, card: ModelCard, device: torch.device, *, whole_volume: bool = False
) -> NDArray[np.int32]:
    """HarmonicNet's cells.

    Parameters
    ----------
    fields : (1 + coefficients, z, y, x) array
        Distance map and harmonics of the network's output, with the stride of the card.
    card : ModelCard
    device : torch.device
        Not used: all of this runs on the CPU.
    whole_volume : bool
        Ask every voxel of the volume which simplex it is in, as the published code does, instead
        of those of the shape's own box.
    """
    from skimage.feature import peak_local_max

    given = StarParameters(**card.decoder_parameters)
    stride = card.output_stride
    map_ = torch.from_numpy(np.ascontiguousarray(fields[:1])[None])
    height = torch.nn.functional.interpolate(map_, scale_factor=stride, mode="trilinear")
    heights = height[0, 0].numpy()
    peaks = peak_local_max(
        heights,
        min_distance=round(given.min_distance),
        threshold_abs=given.threshold,
        exclude_border=False,
    )
    points = directions(FEWER)
    harmonics = real_harmonics(points, fields.shape[0] - 1)
    labels = np.zeros(heights.shape, np.int32)
    voxels = np.indices(labels.shape).reshape(3, -1).T if whole_volume else None
    found = 0
    for peak in peaks[np.argsort(-heights[tuple(peaks.T)], kind="stable")]:
        ends = peak + (harmonics @ _mean_around(fields, peak // stride))[:, None] * points
        inside = _in_simplices(ends, labels.shape, voxels)
        free = labels[tuple(inside.T)] == 0
        # The best shape comes first: another one that has too many of its voxels is the same cell.
        if len(inside) and 1 - free.mean() <= given.max_overlap:
            found += 1
            labels[tuple(inside[free].T)] = found
    return labels


harmonic_cells_over_the_volume = partial(harmonic_cells, whole_volume=True)


def real_harmonics(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Real orthonormal harmonics at unit vectors (z, y, x), one column each, by degree and order.

    The polar axis lies along z, the azimuth goes from x to y.
    """
    polar, azimuth = np.arccos(points[:, 0]), np.arctan2(points[:, 1], points[:, 2])
    columns: list[NDArray[np.float64]] = []
    degree = 0
    while len(columns) < count:
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), polar, azimuth)
            part = value.imag if order < 0 else value.real
            columns.append(part * ((-1) ** order * np.sqrt(2) if order else 1.0))
        degree += 1
    return np.stack(columns, axis=1)


def _mean_around(fields: NDArray[Any], place: NDArray[np.intp]) -> NDArray[np.float64]:
    """Coefficients around a voxel, weighted by the distance map."""
    low = np.maximum(place - AVERAGED // 2, 0)
    box = tuple(slice(a, b + AVERAGED // 2 + 1) for a, b in zip(low, place, strict=True))
    weights = fields[0][box]
    return np.asarray((fields[1:][(slice(None), *box)] * weights).sum(axis=(1, 2, 3))) / (
        weights.sum()
    )


def _in_simplices(
    ends: NDArray[np.float64], shape: tuple[int, ...], voxels: NDArray[np.intp] | None
) -> NDArray[np.intp]:
    """Voxels inside of the Delaunay simplices of some points, of all or of those of their box."""
    if voxels is None:
        low = np.clip(np.floor(ends.min(axis=0)), 0, shape).astype(np.intp)
        high = np.clip(np.ceil(ends.max(axis=0)) + 1, 0, shape).astype(np.intp)
        voxels = np.indices(high - low).reshape(3, -1).T + low
    if not len(voxels):
        return voxels
    # Matrices of 3 x 3 take threads of BLAS twice as long as one, and far longer beside other work.
    with threadpool_limits(1, "blas"):
        return voxels[Delaunay(ends).find_simplex(voxels) >= 0]


def stardist_version() -> str | None:
    """The version of the package, or None where it is not installed."""
    try:
        import stardist.nms  # noqa: F401
    except ImportError:
        return None
    return version("stardist")


def require_stardist() -> str:
    """End in one line where the package is missing, else return its version."""
    found = stardist_version()
    if found is None:
        sys.exit(
            "stardist is not installed, against which this measures; "
            "run `pip install --no-deps stardist csbdeep six`"
        )
    return found


def stardist_rays(count: int) -> Any:
    """The directions that cellrt ships, as the package takes them."""
    from stardist.rays3d import Rays_Explicit

    vertices = directions(count)
    faces = ConvexHull(vertices).simplices
    # Seen from outside the corners of each face go round the same way.
    turned = np.linalg.det(vertices[faces]) > 0
    faces[turned] = faces[turned][:, ::-1]
    return Rays_Explicit(vertices.tolist(), faces.tolist())


def stardist_cells(fields: np.ndarray, card: ModelCard, device: torch.device) -> NDArray[np.int32]:
    """StarDist's cells, by its own package.

    Parameters
    ----------
    fields : (1 + rays, z, y, x) array
        Probability and radii of the network's output, with the stride of the card.
    card : ModelCard
    device : torch.device
        Not used: the package does this on the CPU.
    """
    from stardist.geometry import polyhedron_to_label
    from stardist.nms import non_maximum_suppression_3d

    given = StarParameters(**card.decoder_parameters)
    stride = card.output_stride
    rays = stardist_rays(fields.shape[0] - 1)
    points, scores, radii = non_maximum_suppression_3d(
        np.ascontiguousarray(np.moveaxis(fields[1:], 0, -1)),
        np.ascontiguousarray(fields[0]),
        rays,
        grid=(stride,) * 3,
        b=0,
        nms_thresh=given.max_overlap,
        prob_thresh=given.threshold,
    )
    shape = tuple(stride * n for n in fields.shape[1:])
    # A voxel of the output stands for a block, whose middle is between voxels of the image.
    centres = points + (stride - 1) / 2
    labels = polyhedron_to_label(radii, centres, rays, shape, prob=scores, verbose=False)
    return np.asarray(labels, np.int32)
