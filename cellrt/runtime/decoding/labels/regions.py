"""Regions of a label image: measured, filtered and numbered, whatever found them.

All passes are linear in voxels, whatever the number of regions, and change labels in place.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.threads import in_threads

Labels = npt.NDArray[np.int32]


class Regions(NamedTuple):
    """Voxels of each label 0..n, and the flat index of its first voxel.

    The background and labels that do not occur have no voxels; their first voxel means nothing.
    """

    volumes: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    def grouped(self, group: npt.NDArray[np.int32]) -> Regions:
        """Regions of groups; those of members are added to their group's number."""
        volumes = np.zeros_like(self.volumes)
        np.add.at(volumes, group, self.volumes)
        first = np.full_like(self.first, np.iinfo(np.int64).max)
        present = self.volumes > 0
        np.minimum.at(first, group[present], self.first[present])
        return Regions(volumes, first)

    def numbered(self, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """New label of each: from 1, by first voxel; 0 for those absent or not to keep."""
        table = np.zeros(keep.size, np.int32)
        kept = np.flatnonzero(keep & (self.volumes > 0))
        table[kept[np.argsort(self.first[kept])]] = np.arange(1, kept.size + 1)
        return table

    def relabelled(self, table: npt.NDArray[np.int32]) -> Regions:
        """Regions as they are after :func:`relabel` with a table that :meth:`numbered` gave."""
        old = former_labels(table)
        return Regions(self.volumes[old], self.first[old])


def former_labels(table: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """For each label that a table of :meth:`Regions.numbered` gives, the one that becomes it."""
    old = np.zeros(int(table.max()) + 1, np.int64)
    old[table] = np.arange(table.size)
    old[0] = 0
    return old


def count_regions(labels: Labels, count: int) -> Regions:
    """Measure the regions of a label image with labels 0..`count`."""
    flat = labels.reshape(-1)

    def part(lo: int, hi: int) -> Regions:
        volumes = np.zeros(count + 1, np.int64)
        first = np.full(count + 1, np.iinfo(np.int64).max)
        _count(flat, volumes, first, lo, hi)
        return Regions(volumes, first)

    parts = in_threads(flat.size, part, voxels=flat.size)
    volumes: npt.NDArray[np.int64] = np.sum([part.volumes for part in parts], axis=0)
    first: npt.NDArray[np.int64] = np.min([part.first for part in parts], axis=0)
    volumes[0] = 0
    return Regions(volumes, first)


@compiled
def _count(labels: Any, volumes: Any, first: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        label = labels[i]
        if volumes[label] == 0:
            first[label] = i
        volumes[label] += 1


def bounding_boxes(labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """First and past-the-last index of each label 0..`count` along z, y, x.

    Returns
    -------
    (count + 1, 6) int64 array
        Rows (z0, z1, y0, y1, x0, x1); z1 = 0 for labels that do not occur.
    """
    boxes: npt.NDArray[np.int64] = _bounding_boxes(labels, count)
    return boxes


@compiled
def _bounding_boxes(labels: Any, count: int) -> Any:
    nz, ny, nx = labels.shape
    boxes = np.zeros((count + 1, 6), np.int64)
    boxes[:, 0] = nz
    boxes[:, 2] = ny
    boxes[:, 4] = nx
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if label > 0:
                    boxes[label, 0] = min(boxes[label, 0], z)
                    boxes[label, 1] = max(boxes[label, 1], z + 1)
                    boxes[label, 2] = min(boxes[label, 2], y)
                    boxes[label, 3] = max(boxes[label, 3], y + 1)
                    boxes[label, 4] = min(boxes[label, 4], x)
                    boxes[label, 5] = max(boxes[label, 5], x + 1)
    return boxes


def equivalent_radius(
    volumes: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Radius in voxels of the ball of the same volume.

    In a stack of one slice it is the disc of the same area, in a single line half the length.
    """
    extended = sum(n > 1 for n in shape)
    if extended == 3:
        cube: npt.NDArray[np.float64] = np.cbrt(volumes * (3.0 / (4.0 * np.pi)))
        return cube
    radius: npt.NDArray[np.float64] = np.sqrt(volumes / np.pi) if extended == 2 else volumes / 2.0
    return radius


def smallest_volume(radius: float, shape: tuple[int, ...]) -> float:
    """Voxels of a region with the equivalent radius `radius`: the inverse of the above."""
    extended = sum(n > 1 for n in shape)
    if extended == 3:
        return float(4.0 / 3.0 * np.pi * radius**3)
    return float(np.pi * radius**2) if extended == 2 else 2.0 * radius


def relabel(labels: Labels, table: npt.NDArray[np.int32]) -> None:
    """Replace each label by ``table[label]``, in place."""
    flat = labels.reshape(-1)
    in_threads(flat.size, partial(_relabel, flat, table), voxels=flat.size)


@compiled
def _relabel(labels: Any, table: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        labels[i] = table[labels[i]]
