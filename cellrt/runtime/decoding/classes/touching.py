"""Which supervoxels are one cell: those that share a large touching area.

All touching areas are counted in one pass, and every decision is made from the counts alone, so
the result does not depend on the order or the numbers of the supervoxels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.runtime.decoding.labels.pair_table import claimed
from cellrt.threads import in_threads

Counts = npt.NDArray[np.int64]


class Touching(NamedTuple):
    """Size, surface and contacts of supervoxels 1 to n; entry 0 of the first two is 0.

    ``volumes`` are in voxels, ``surfaces`` and ``areas`` in voxel faces. ``first[i] < second[i]``
    touch in ``areas[i]`` faces; every touching pair occurs once.
    """

    volumes: Counts
    surfaces: Counts
    first: Counts
    second: Counts
    areas: Counts


def touching_areas(labels: npt.NDArray[np.int32], count: int) -> Touching:
    """Count the faces of all supervoxels and of all touching pairs in one pass.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Supervoxels 1 to `count`; 0 is outside.

    Notes
    -----
    The surface of a supervoxel is its whole surface: faces towards other supervoxels, towards
    membrane and background, and at the volume's end. Along an axis of a single voxel there are no
    faces, so that areas of a 2D image are lengths.
    """

    def part(lo: int, hi: int) -> tuple[int, Counts, Counts]:
        # Supervoxels are numbered in the order of their maxima, so that a slab knows few of them.
        lowest, highest = (int(of(labels[lo : hi + 1])) for of in (np.min, np.max))
        counts = np.zeros((2, highest + 1 - lowest), np.int64)
        table = _count_faces(labels, *counts, lowest, lo, hi)
        return lowest, counts, table[table[:, 0] != 0]

    parts = in_threads(labels.shape[0], part, voxels=2 * labels.size)
    volumes, surfaces = sums = np.zeros((2, count + 1), np.int64)
    for lowest, counts, _ in parts:
        sums[:, lowest : lowest + counts.shape[1]] += counts
    sums[:, 0] = 0
    keys, areas = np.concatenate([table for _, _, table in parts]).T
    return Touching(volumes, surfaces, *_pooled(keys >> 32, keys & 0xFFFFFFFF, areas))


def merge_supervoxels(touching: Touching, min_area: int) -> npt.NDArray[np.int32]:
    """Decide which supervoxels are one cell.

    Parameters
    ----------
    touching : Touching
        As :func:`touching_areas` counts it.
    min_area : int
        Two supervoxels that touch in at least this many voxel faces are one cell.

    Returns
    -------
    (n + 1,) int32 array
        Cell of each supervoxel, from 1; entry 0 is 0.

    Notes
    -----
    First every pair that touches in `min_area` faces or more is joined. Then what results is looked
    at as a whole: a part of which a larger one covers more than half of the whole surface joins it,
    again and again until there is none. A cell made of several supervoxels thus counts as one
    neighbour; for parts of a single supervoxel and neighbours of a single supervoxel this is the
    paper's rule. All joins of a round are decided before any of them takes place.

    References
    ----------
    Wang et al., Scientific Reports 12:342, 2022 ("TASCAN for instance segmentation", fig. 6). The
    published code divides by the surface shared with other supervoxels and merges as it visits
    them; the paper's text divides by the surface and is followed here.
    """
    enough = touching.areas >= min_area
    cells = _joined(touching.volumes.size, touching.first[enough], touching.second[enough])
    while True:
        count = int(cells.max(initial=0)) + 1
        inner = cells[touching.first] == cells[touching.second]
        volumes, surfaces = (
            np.bincount(cells, values, count) for values in (touching.volumes, touching.surfaces)
        )
        surfaces -= np.bincount(cells[touching.first[inner]], 2 * touching.areas[inner], count)
        first, second, areas = _pooled(
            cells[touching.first[~inner]], cells[touching.second[~inner]], touching.areas[~inner]
        )
        covered = (2 * areas > surfaces[first]) & (volumes[first] <= volumes[second])
        covered |= (2 * areas > surfaces[second]) & (volumes[second] <= volumes[first])
        if not covered.any():
            return cells
        cells = _joined(count, first[covered], second[covered])[cells]


def _joined(count: int, first: Counts, second: Counts) -> npt.NDArray[np.int32]:
    """Number the groups that some pairs of 1 to count-1 make; 0 stays alone."""
    group = np.arange(count, dtype=np.int32)
    _union(group, first, second)
    return group


@compiled
def _union(parent: Any, first: Any, second: Any) -> None:
    for i in range(first.size):
        a, b = first[i], second[i]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        # The lower one leads: links go down only.
        parent[max(a, b)] = min(a, b)
    groups = 0
    for a in range(1, parent.size):
        if parent[a] == a:
            groups += 1
            parent[a] = groups
        else:
            parent[a] = parent[parent[a]]


def _pooled(first: Counts, second: Counts, areas: Counts) -> tuple[Counts, Counts, Counts]:
    """Sum the areas of equal pairs, whichever way round they are."""
    keys = (np.minimum(first, second).astype(np.int64) << 32) | np.maximum(first, second)
    pairs, which = np.unique(keys, return_inverse=True)
    summed = np.bincount(which, areas, pairs.size).astype(np.int64)
    return pairs >> 32, pairs & 0xFFFFFFFF, summed


@compiled
def _count_faces(labels: Any, volumes: Any, surfaces: Any, lowest: int, lo: int, hi: int) -> Any:
    """Count the voxels of the slices lo to hi-1 and the faces behind, below and beside them."""
    nz, ny, nx = labels.shape
    table = np.zeros((1 << 12, 2), np.int64)  # key, faces
    used = 0
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                a = labels[z, y, x]
                volumes[a - lowest] += 1
                if nz > 1:
                    surfaces[a - lowest] += (z == 0) + (z == nz - 1)
                if ny > 1:
                    surfaces[a - lowest] += (y == 0) + (y == ny - 1)
                if nx > 1:
                    surfaces[a - lowest] += (x == 0) + (x == nx - 1)
                for axis in range(3):
                    if axis == 0:
                        b = labels[z + 1, y, x] if z + 1 < nz else a
                    elif axis == 1:
                        b = labels[z, y + 1, x] if y + 1 < ny else a
                    else:
                        b = labels[z, y, x + 1] if x + 1 < nx else a
                    if a == b:
                        continue
                    surfaces[a - lowest] += 1
                    surfaces[b - lowest] += 1
                    if a == 0 or b == 0:
                        continue
                    key = (np.int64(min(a, b)) << 32) | np.int64(max(a, b))
                    table, slot, used = claimed(table, key, used)
                    table[slot, 1] += 1
    return table
