"""3DCellSeg's post-processing as one writes it in Python today, for comparison.

The paper's steps with SciPy, scikit-image and scikit-learn, in array operations wherever there are
any: loops run over touching pairs of supervoxels, never over voxels. No kernel of cellrt is used.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import relabel_sequential, watershed
from sklearn.cluster import dbscan

from cellrt.runtime.model.card import ModelCard

FOREGROUND = 2


def tascan_cells(fields: np.ndarray, card: ModelCard, device: torch.device) -> NDArray[np.int32]:
    """TASCAN: supervoxels by watershed, merged by touching area.

    Parameters
    ----------
    fields : (3, z, y, x) array
        Background, membrane, foreground.
    """
    classes = fields.argmax(0)
    inside = classes == FOREGROUND
    distance = ndimage.distance_transform_edt(inside).astype(np.float32)
    supervoxels = watershed(-distance, connectivity=3, mask=inside).astype(np.int64)
    count = int(supervoxels.max(initial=0))
    parent = list(range(count + 1))

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    min_area = card.decoder_parameters.get("min_area", 30)
    areas = touching_areas(supervoxels)
    surfaces = whole_surfaces(supervoxels, count)
    volumes = np.bincount(supervoxels.ravel(), minlength=count + 1)
    for (first, second), area in areas.items():
        smaller = first if volumes[first] <= volumes[second] else second
        if area >= min_area or 2 * area > surfaces[smaller]:
            parent[root(first)] = root(second)
    roots = np.array([root(cell) for cell in range(count + 1)])
    return with_nearest(roots[supervoxels], classes)


def dbscan_cells(fields: np.ndarray, card: ModelCard, device: torch.device) -> NDArray[np.int32]:
    """Cluster the foreground's voxels; what the paper compares TASCAN with."""
    classes = fields.argmax(0)
    inside = classes == FOREGROUND
    labels = np.zeros(classes.shape, np.int64)
    _, clusters = dbscan(
        np.argwhere(inside).astype(np.float32),
        eps=2.0,
        min_samples=30,
        algorithm="kd_tree",
        n_jobs=-1,
    )
    labels[inside] = clusters + 1
    return with_nearest(labels, classes)


def touching_areas(labels: NDArray[np.int64]) -> dict[tuple[int, int], int]:
    """Voxel faces that each pair of supervoxels shares."""
    found = []
    for axis in range(3):
        a = np.moveaxis(labels, axis, 0)[:-1].ravel()
        b = np.moveaxis(labels, axis, 0)[1:].ravel()
        differ = (a != b) & (a > 0) & (b > 0)
        pairs = np.sort(np.stack([a[differ], b[differ]]), axis=0)
        found.append(pairs)
    pairs, counts = np.unique(np.concatenate(found, axis=1), axis=1, return_counts=True)
    return {(int(a), int(b)): int(n) for a, b, n in zip(*pairs, counts, strict=True)}


def whole_surfaces(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Faces of each supervoxel towards anything else, the volume's end included."""
    surfaces = np.zeros(count + 1, np.int64)
    for axis in range(3):
        width = [(1, 1) if k == axis else (0, 0) for k in range(3)]
        padded = np.moveaxis(np.pad(labels, width), axis, 0)
        changed = padded[:-1] != padded[1:]
        for side in (padded[:-1], padded[1:]):
            surfaces += np.bincount(side[changed], minlength=count + 1)
    return surfaces


def with_nearest(labels: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Give membrane and leftover foreground to the nearest cell, and number the cells."""
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    filled = np.where(classes > 0, labels[tuple(nearest)], 0)
    return relabel_sequential(filled)[0].astype(np.int32)
