"""Class maps: one byte per voxel that says background, membrane or foreground (inside of a cell).

References
----------
Wang et al., "A novel deep learning-based 3D cell segmentation framework for future image-based
disease detection", Scientific Reports 12:342, 2022 (3DCellSeg; Methods).
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.geometry import canonical_labels
from cellrt.threads import in_threads

BACKGROUND, MEMBRANE, FOREGROUND = 0, 1, 2

ClassMap = npt.NDArray[np.uint8]


def class_map_of(labels: npt.NDArray[np.integer[Any]], membrane_voxels: float = 1.5) -> ClassMap:
    """Class map that a perfect network would give for some cells.

    Membrane is every voxel of a cell that is near a voxel outside of the cell. The volume's faces
    and unknown voxels are no border.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Cells; 0 is background, below 0 unknown.
    membrane_voxels : float
        What is near, as a distance between voxel centres (k of the paper); 1.5 takes the 18
        neighbours across a face or an edge.

    Returns
    -------
    (z, y, x) uint8 array
        `BACKGROUND`, `MEMBRANE` or `FOREGROUND`; `BACKGROUND` also where unknown.

    Examples
    --------
    >>> import numpy as np
    >>> class_map_of(np.array([[[0, 1, 1, 1, 2, 2, 2]]]))[0, 0].tolist()
    [0, 1, 2, 1, 1, 2, 2]
    """
    cells = canonical_labels(labels)
    classes = np.empty(cells.shape, np.uint8)
    offsets = _offsets_within(membrane_voxels)
    in_threads(cells.shape[0], partial(_classify, cells, offsets, classes), voxels=4 * cells.size)
    return classes


def class_map_from(fields: npt.NDArray[np.float32], classes: ClassMap) -> None:
    """Write the most probable class of each voxel.

    Parameters
    ----------
    fields : (3, z, y, x) float32 array
        Of background, membrane and foreground.
    classes : (z, y, x) uint8 array
        Written to.
    """
    in_threads(len(classes), partial(_choose, fields, classes), voxels=classes.size)


@inlined
def most_probable(background: Any, membrane: Any, foreground: Any) -> Any:
    """Class of a voxel; of equally probable ones the first."""
    best = np.uint8(BACKGROUND)
    if membrane > background:
        best = np.uint8(MEMBRANE)
    if foreground > max(background, membrane):
        best = np.uint8(FOREGROUND)
    return best


@compiled
def _choose(fields: Any, classes: Any, lo: int, hi: int) -> None:
    for z in range(lo, hi):
        for y in range(classes.shape[1]):
            for x in range(classes.shape[2]):
                classes[z, y, x] = most_probable(
                    fields[0, z, y, x], fields[1, z, y, x], fields[2, z, y, x]
                )


def _offsets_within(distance: float) -> npt.NDArray[np.int64]:
    """Steps to all voxels within a distance, nearest first, because those decide most often."""
    reach = range(-int(distance), int(distance) + 1)
    steps = [s for s in product(reach, reach, reach) if 0 < sum(c * c for c in s) <= distance**2]
    steps.sort(key=lambda s: sum(c * c for c in s))
    return np.array(steps, np.int64).reshape(-1, 3)


@compiled
def _classify(labels: Any, offsets: Any, classes: Any, lo: int, hi: int) -> None:
    nz, ny, nx = labels.shape
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if label <= 0:
                    classes[z, y, x] = BACKGROUND
                    continue
                classes[z, y, x] = FOREGROUND
                for k in range(offsets.shape[0]):
                    a, b, c = z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]
                    if a < 0 or b < 0 or c < 0 or a >= nz or b >= ny or c >= nx:
                        continue
                    other = labels[a, b, c]
                    if other != label and other >= 0:
                        classes[z, y, x] = MEMBRANE
                        break


def class_matches(
    labels: npt.NDArray[np.int32], predicted: ClassMap, expected: ClassMap, count: int
) -> npt.NDArray[np.int64]:
    """Compare two class maps cell by cell.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Cells 1 to `count`.
    predicted, expected : (z, y, x) uint8 array

    Returns
    -------
    (count + 1, 3) int64 array
        Voxels of each label; those of them that both maps call the same; those predicted to be
        `FOREGROUND`.
    """
    flat, seen, wanted = (a.reshape(-1) for a in (labels, predicted, expected))

    def part(lo: int, hi: int) -> npt.NDArray[np.int64]:
        counts = np.zeros((count + 1, 3), np.int64)
        _add_matches(flat, seen, wanted, counts, lo, hi)
        return counts

    found: npt.NDArray[np.int64] = np.sum(in_threads(flat.size, part, voxels=flat.size), axis=0)
    return found


@compiled
def _add_matches(labels: Any, predicted: Any, expected: Any, counts: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        label = labels[i]
        counts[label, 0] += 1
        counts[label, 1] += predicted[i] == expected[i]
        counts[label, 2] += predicted[i] == FOREGROUND
