"""Segmentation without a network: Otsu, distance transform, watershed.

What a careful user of a general image-analysis package would do, in its favour: it is told the
median diameter of the true cells and the anisotropy, and its settings were chosen on some of the
stacks that it is scored on; ``python benchmarks/accuracy.py --tune nuclei`` searches further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed


@dataclass(frozen=True)
class WatershedSettings:
    """All lengths in median cell diameters, so that one setting serves all cell sizes.

    Parameters
    ----------
    smoothing : float
        Standard deviation of the Gaussian on the image.
    distance_smoothing : float
        Standard deviation of the Gaussian on the distance transform.
    seed_distance : float
        Half edge of the box in which a seed is the only maximum.
    smallest : float
        Cells below this share of the median cell's volume are dropped.
    background : float
        Standard deviation of a wide Gaussian whose result is subtracted before the threshold, as a
        rolling ball would be, so that bright regions do not decide for dim ones; 0 for none.
    logarithm : bool
        Whether the logarithm of the intensity is taken first.
    """

    smoothing: float
    distance_smoothing: float
    seed_distance: float
    smallest: float
    background: float
    logarithm: bool


NUCLEI = WatershedSettings(0.1, 0.05, 0.3, 0.1, 0.0, False)
MEMBRANES = WatershedSettings(0.03, 0.05, 0.3, 0.1, 0.25, True)


def segment_nuclei(
    image: NDArray[np.generic],
    *,
    diameter: float,
    anisotropy: float,
    settings: WatershedSettings = NUCLEI,
) -> NDArray[np.int32]:
    """Threshold the smoothed image, then cut the mask at the necks of its distance transform.

    Parameters
    ----------
    image : ndarray (z, y, x)
    diameter : float
        Median cell diameter in voxels along x.
    anisotropy : float
        Voxel size along z over voxel size along x.
    settings : WatershedSettings

    Returns
    -------
    ndarray of int32 (z, y, x)
        Labels, 0 = background.
    """
    spacing = np.array([anisotropy, 1.0, 1.0])
    smooth = _smoothed(image, settings, diameter / spacing)
    flat = _flattened(smooth, settings.background * diameter / spacing)
    mask = flat > threshold_otsu(flat)
    distance, seeds = _distance_and_seeds(mask, diameter, spacing, settings)
    labels = watershed(-distance, seeds, mask=mask)
    return _without_crumbs(labels, diameter, anisotropy, settings)


def segment_membranes(
    image: NDArray[np.generic],
    *,
    diameter: float,
    anisotropy: float,
    settings: WatershedSettings = MEMBRANES,
) -> NDArray[np.int32]:
    """Seed the cells far from thresholded walls, then flood the smoothed image from the seeds.

    Parameters and result as in `segment_nuclei`; the labels are dense.
    """
    spacing = np.array([anisotropy, 1.0, 1.0])
    smooth = _smoothed(image, settings, diameter / spacing)
    flat = _flattened(smooth, settings.background * diameter / spacing)
    inside = flat <= threshold_otsu(flat)
    _, seeds = _distance_and_seeds(inside, diameter, spacing, settings)
    labels = watershed(smooth, seeds)
    return _without_crumbs(labels, diameter, anisotropy, settings)


def _smoothed(
    image: NDArray[np.generic], settings: WatershedSettings, diameter: NDArray[np.float64]
) -> NDArray[np.float32]:
    values = image.astype(np.float32)
    # A few hot pixels would otherwise take up most of Otsu's histogram.
    low, high = np.percentile(values, [1, 99.8])
    values = np.clip(values, low, high)
    if settings.logarithm:
        values = np.log(values - low + 0.05 * max(high - low, 1e-6))
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(values, settings.smoothing * diameter)
    return smooth


def _flattened(smooth: NDArray[np.float32], sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    if not sigma.any():
        return smooth
    flat: NDArray[np.float32] = smooth - ndimage.gaussian_filter(smooth, sigma)
    return flat


def _distance_and_seeds(
    mask: NDArray[np.bool_],
    diameter: float,
    spacing: NDArray[np.float64],
    settings: WatershedSettings,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    distance = ndimage.distance_transform_edt(mask, sampling=spacing).astype(np.float32)
    distance = ndimage.gaussian_filter(distance, settings.distance_smoothing * diameter / spacing)
    box = 2 * np.round(settings.seed_distance * diameter / spacing).astype(int) + 1
    peaks = (distance == ndimage.maximum_filter(distance, size=tuple(box))) & mask
    seeds, _ = ndimage.label(peaks, structure=np.ones((3, 3, 3)))
    return distance, seeds


def _without_crumbs(
    labels: NDArray[np.int32], diameter: float, anisotropy: float, settings: WatershedSettings
) -> NDArray[np.int32]:
    # One slice has areas.
    size = np.pi / 4 * diameter**2 if len(labels) == 1 else np.pi / 6 * diameter**3 / anisotropy
    keep = np.bincount(labels.ravel()) >= settings.smallest * size
    kept: NDArray[np.int32] = np.where(keep[labels], labels, 0)
    return kept
