"""Of shapes of harmonics that overlap the one with the highest score stays.

How much two share is counted in voxels, as a part of the smaller one; of shapes by their radii see
:mod:`~cellrt.runtime.decoding.star.polyhedra`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import Shape
from cellrt.runtime.decoding.star.candidates import Proposals
from cellrt.runtime.decoding.star.gpu_or_cpu import HOST
from cellrt.runtime.decoding.star.harmonic_ratio import MARGIN
from cellrt.runtime.decoding.star.neighbours import common_box, later_neighbours, sort_into_grid


def separate_peaks(shapes: Proposals, distance: float) -> NDArray[np.intp]:
    """Which shapes have no other one with a higher score in the box around their place.

    Parameters
    ----------
    shapes : Proposals
        The highest score first.
    distance : float
        Half an edge of the box, in voxels of the network's grid.
    """
    if not len(shapes):
        return np.zeros(0, np.intp)
    kept = np.ones(len(shapes), np.bool_)
    places = np.ascontiguousarray(shapes.places.astype(np.float64))
    _separate(places, distance, sort_into_grid(places, max(distance, 1.0)), kept)
    return np.flatnonzero(kept)


def suppress_harmonics(
    shape: Shape,
    centres: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    reach: NDArray[np.float64],
    most_overlap: float,
    draw: ModuleType = HOST,
) -> NDArray[np.intp]:
    """Which of some shapes stay; parameters as for `rasterise_harmonics`, best score first.

    `draw` is what makes voxels of them, on the CPU or a GPU.
    """
    if not len(centres):
        return np.zeros(0, np.intp)
    masks = draw.harmonic_masks(shape, centres, coefficients, reach)
    kept = np.zeros(len(centres), np.bool_)
    outer = np.maximum(reach, 0.0) * MARGIN
    edge = max(2.0, float(np.median(outer)))
    _suppress_masks(centres, outer, *masks, most_overlap, sort_into_grid(centres, edge), kept)
    return np.flatnonzero(kept)


@compiled
def _separate(places: Any, distance: Any, grid: Any, kept: Any) -> None:
    near = np.empty(places.shape[0], np.int64)
    for i in range(places.shape[0]):
        for k in range(later_neighbours(grid, i, places[i], distance, near)):
            apart = 0.0
            for axis in range(3):
                apart = max(apart, abs(places[i, axis] - places[near[k], axis]))
            if apart <= distance:
                kept[near[k]] = False


@compiled
def _suppress_masks(
    centres: Any,
    outer: Any,
    boxes: Any,
    starts_of: Any,
    masks: Any,
    volumes: Any,
    most: Any,
    grid: Any,
    kept: Any,
) -> None:
    farthest = outer.max()
    gone = np.zeros(centres.shape[0], np.bool_)
    near = np.empty(centres.shape[0], np.int64)
    part = np.empty((3, 2), np.int64)
    for i in range(centres.shape[0]):
        if gone[i] or volumes[i] == 0:
            continue
        kept[i] = True
        a = boxes[i]
        for k in range(later_neighbours(grid, i, centres[i], outer[i] + farthest, near)):
            j = near[k]
            if gone[j]:
                continue
            b = boxes[j]
            limit = most * min(volumes[i], volumes[j])
            if common_box(a, b, part) <= limit:
                continue
            count = 0
            for z in range(part[0, 0], part[0, 1]):
                for y in range(part[1, 0], part[1, 1]):
                    p = ((z - a[0]) * (a[3] - a[2]) + y - a[2]) * (a[5] - a[4])
                    q = ((z - b[0]) * (b[3] - b[2]) + y - b[2]) * (b[5] - b[4])
                    p += starts_of[i] - a[4]
                    q += starts_of[j] - b[4]
                    for x in range(part[2, 0], part[2, 1]):
                        count += masks[p + x] & masks[q + x]
            gone[j] = count > limit
