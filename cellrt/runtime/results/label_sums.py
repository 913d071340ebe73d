"""Sums per label in one pass over the voxels: sizes, moments, crossings, intensities.

The volume is never copied: labels are visited slice by slice, each line as runs of one label, so
that the cost per voxel is small and independent of the number of cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.image.source import Voxels
from cellrt.runtime.results.surface_weights import DIRECTIONS
from cellrt.threads import in_threads

_STEPS = np.array(DIRECTIONS, dtype=np.int64)
_SLAB = 32  # slices


def shape_sums(
    labels: NDArray[np.int32], largest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxel counts, first and second moments and bounding boxes per label.

    Parameters
    ----------
    labels : contiguous ndarray of int32, shape (z, y, x)
    largest : int
        Largest label; rows 0 to ``largest`` are returned.

    Returns
    -------
    boxes : ndarray of int64, shape (largest + 1, 6)
        z, y, x of the first voxel inside and of the first voxel beyond.
    moments : ndarray of int64, shape (largest + 1, 13)
        Reference voxel (3), count, sums (3) and sums of products zz, yy, xx, zy, zx, yx (6) of the
        coordinates relative to the reference. Integers, hence exact.
    """
    boxes = np.zeros((largest + 1, 6), dtype=np.int64)
    moments = np.zeros((largest + 1, 13), dtype=np.int64)
    _add_shapes(labels, boxes, moments)
    return boxes, moments


def crossing_sums(
    labels: NDArray[np.int32], largest: int, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted crossings of each label's surface, float64, shape (largest + 1,).

    Parameters
    ----------
    labels : contiguous ndarray of int32, shape (z, y, x)
    largest : int
    weights : ndarray of float64, shape (13,)
        Of a crossing along each of `cellrt.runtime.results.surface_weights.DIRECTIONS`.
    """
    starts = range(0, len(labels), _SLAB)
    crossed = weights != 0  # in a single slice the four directions within it
    steps, weights = _STEPS[crossed], weights[crossed]

    def slabs(lo: int, hi: int) -> NDArray[np.float64]:
        surfaces = np.zeros((hi - lo, largest + 1), dtype=np.float64)
        for surface, start in zip(surfaces, starts[lo:hi], strict=True):
            stop = min(start + _SLAB, len(labels))
            _add_crossings(labels, steps, weights, surface, start, stop)
        return surfaces

    # Slabs do not depend on the number of cores, so neither does the order of summation.
    total = np.zeros(largest + 1, dtype=np.float64)
    for surfaces in in_threads(len(starts), slabs, voxels=labels.size):
        for surface in surfaces:
            total += surface
    return total


def intensity_sums(labels: NDArray[np.int32], image: Voxels, largest: int) -> NDArray[np.float64]:
    """Reference value, count, sum and sum of squares relative to it, minimum, maximum per label.

    The reference is the label's first value: without it squares of bright, even cells would lose
    the digits that their standard deviation is made of.
    """
    sums = np.zeros((largest + 1, 6), dtype=np.float64)
    for label_slice, image_slice in zip(labels, image, strict=True):
        _add_intensities(label_slice, np.ascontiguousarray(image_slice, dtype=np.float64), sums)
    return sums


@compiled
def _add_shapes(labels, boxes, moments):  # type: ignore[no-untyped-def]
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            x = 0
            while x < nx:
                label = labels[z, y, x]
                start = x
                while x < nx and labels[z, y, x] == label:
                    x += 1
                if label <= 0:
                    continue
                box = boxes[label]
                m = moments[label]
                if m[3] == 0:
                    m[0], m[1], m[2] = z, y, start
                    box[0], box[1], box[2] = z, y, start
                    box[3], box[4], box[5] = z + 1, y + 1, x
                else:
                    box[1] = min(box[1], y)
                    box[2] = min(box[2], start)
                    box[3] = z + 1
                    box[4] = max(box[4], y + 1)
                    box[5] = max(box[5], x)
                n = x - start
                dz = z - m[0]
                dy = y - m[1]
                a = start - m[2]
                # Sums of a, a + 1, ..., a + n - 1 and of their squares.
                s1 = n * a + n * (n - 1) // 2
                s2 = n * a * a + a * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
                m[3] += n
                m[4] += n * dz
                m[5] += n * dy
                m[6] += s1
                m[7] += n * dz * dz
                m[8] += n * dy * dy
                m[9] += s2
                m[10] += n * dz * dy
                m[11] += dz * s1
                m[12] += dy * s1


@compiled
def _add_crossings(labels, steps, weights, surface, lo, hi):  # type: ignore[no-untyped-def]
    nz, ny, nx = labels.shape
    count = len(weights)
    within = True  # no direction leaves the slice
    for k in range(count):
        within &= steps[k, 0] == 0
    differs = np.zeros(max(nx - 2, 0), dtype=np.bool_)
    for z in range(lo, hi):
        for y in range(ny):
            if (within or 0 < z < nz - 1) and 0 < y < ny - 1 and nx > 2:
                # Most voxels have equal neighbours only; whole lines compare fast, adding does not.
                line = labels[z, y, 1 : nx - 1]
                differs[:] = False
                for k in range(count):
                    first = 1 + steps[k, 2]
                    other_line = labels[z + steps[k, 0], y + steps[k, 1], first : first + nx - 2]
                    _mark_differences(line, other_line, differs)
                for x in range(1, nx - 1):
                    if differs[x - 1]:
                        label = labels[z, y, x]
                        for k in range(count):
                            other = labels[z + steps[k, 0], y + steps[k, 1], x + steps[k, 2]]
                            if other != label:
                                surface[label] += weights[k]
                                surface[other] += weights[k]
                _add_border_crossings(labels, z, y, np.int64(0), steps, weights, surface)
                _add_border_crossings(labels, z, y, nx - 1, steps, weights, surface)
            else:
                for x in range(nx):
                    _add_border_crossings(labels, z, y, x, steps, weights, surface)


@compiled
def _mark_differences(line, other, differs):  # type: ignore[no-untyped-def]
    for x in range(len(line)):
        differs[x] |= line[x] != other[x]


@compiled
def _add_border_crossings(labels, z, y, x, steps, weights, surface):  # type: ignore[no-untyped-def]
    """Outside the image is background, in all directions, there and back."""
    nz, ny, nx = labels.shape
    label = labels[z, y, x]
    for k in range(len(weights)):
        z1, y1, x1 = z + steps[k, 0], y + steps[k, 1], x + steps[k, 2]
        if 0 <= z1 < nz and 0 <= y1 < ny and 0 <= x1 < nx:
            other = labels[z1, y1, x1]
            if other != label:
                surface[label] += weights[k]
                surface[other] += weights[k]
        else:
            surface[label] += weights[k]
        z1, y1, x1 = z - steps[k, 0], y - steps[k, 1], x - steps[k, 2]
        if not (0 <= z1 < nz and 0 <= y1 < ny and 0 <= x1 < nx):
            surface[label] += weights[k]


@compiled
def _add_intensities(labels, image, sums):  # type: ignore[no-untyped-def]
    ny, nx = labels.shape
    for y in range(ny):
        for x in range(nx):
            label = labels[y, x]
            if label <= 0:
                continue
            value = image[y, x]
            row = sums[label]
            if row[1] == 0.0:
                row[0] = value
                row[4] = value
                row[5] = value
            difference = value - row[0]
            row[1] += 1.0
            row[2] += difference
            row[3] += difference * difference
            row[4] = min(row[4], value)
            row[5] = max(row[5], value)
