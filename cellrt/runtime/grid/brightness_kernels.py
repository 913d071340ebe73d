"""Passes over voxels and over blocks of voxels that measure brightness and apply it.

`cellrt.runtime.grid.brightness` has the rule. NaN stands for a block that is not known. Compiling
takes longer than running here, hence loops, and one way to find quantiles and medians.
"""

from __future__ import annotations

import math

import numpy as np

from cellrt.compiled import compiled

# Blocks from one node of the coarse grid to the next.
NODE_STEP = 4
# The background is this quantile of the block means within 1.5 cells, of which every second block
# along each axis is looked at; of the second differences there it is this one.
BACKGROUND_QUANTILE = 0.1
WINDOW_BLOCKS = 6
WINDOW_STEP = 2
FEWEST_BLOCKS = 8
CALM = 0.25
MOST_IN_WINDOW = (2 * WINDOW_BLOCKS // WINDOW_STEP) ** 3
# A peak is the largest block within this many blocks, and stands out of the median within one cell
# by this share of its height: noise on haze does not.
PEAK_REACH = 2
PROMINENCE_REACH = 4
PROMINENCE = 0.4
_MOST_AROUND = (2 * PROMINENCE_REACH + 1) ** 3
# Values below the background are kept down to here, in units of the contrast.
DARKEST = -0.5


@compiled
def add_plane(plane, fill, start, block, sums, counts):  # type: ignore[no-untyped-def]
    """Add the pixels of a plane to the sums of a layer of blocks; an empty `fill` is none."""
    for y in range(start, plane.shape[0]):
        row = (y - start) // block
        for x in range(start, plane.shape[1]):
            if fill.size and fill[y, x]:
                continue
            column = (x - start) // block
            sums[row, column] += plane[y, x]
            counts[row, column] += 1


@compiled
def window_quantiles(means, shape, background, changes, lo, hi):  # type: ignore[no-untyped-def]
    """Low quantiles around every node of block means and of their second differences.

    `means` is flat; `background` and `changes` are written where something is known, of the nodes'
    layers `lo` to `hi`.
    """
    nz, ny, nx = shape
    found = np.empty(MOST_IN_WINDOW, np.float32)
    differences = np.empty(3 * MOST_IN_WINDOW, np.float32)
    for k in range(lo, hi):
        z = k * NODE_STEP + NODE_STEP // 2
        z0, z1 = max(0, z - WINDOW_BLOCKS), min(nz, z + WINDOW_BLOCKS)
        for j in range(background.shape[1]):
            y = j * NODE_STEP + NODE_STEP // 2
            y0, y1 = max(0, y - WINDOW_BLOCKS), min(ny, y + WINDOW_BLOCKS)
            for i in range(background.shape[2]):
                x = i * NODE_STEP + NODE_STEP // 2
                x0, x1 = max(0, x - WINDOW_BLOCKS), min(nx, x + WINDOW_BLOCKS)
                n = np.int64(0)  # a plain 0 would be a type of its own for `quantile`
                m = np.int64(0)
                places = 0
                for z in range(z0, z1, WINDOW_STEP):
                    for y in range(y0, y1, WINDOW_STEP):
                        for x in range(x0, x1, WINDOW_STEP):
                            places += 1
                            here = (z * ny + y) * nx + x
                            value = means[here]
                            if math.isnan(value):
                                continue
                            found[n] = value
                            n += 1
                            for axis in range(3):
                                if axis == 0:
                                    at, length, stride = z, nz, ny * nx
                                elif axis == 1:
                                    at, length, stride = y, ny, nx
                                else:
                                    at, length, stride = x, nx, 1
                                if at == 0 or at == length - 1:
                                    continue
                                change = means[here - stride] - 2 * value + means[here + stride]
                                if not math.isnan(change):
                                    differences[m] = abs(change)
                                    m += 1
                if n >= min(FEWEST_BLOCKS, places):
                    background[k, j, i] = quantile(found, n, BACKGROUND_QUANTILE)
                    if m:
                        changes[k, j, i] = quantile(differences, m, CALM)


@compiled
def quantile(values, count, share):  # type: ignore[no-untyped-def]
    """Quantile of the first `count` values by linear interpolation; brings them out of order."""
    place = share * (count - 1)
    rank = int(place)
    low = 0
    high = count - 1
    # Hoare's selection: no value before `rank` is larger in the end, and none after it smaller.
    while low < high:
        pivot = values[rank]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                moved = values[i]
                values[i] = values[j]
                values[j] = moved
                i += 1
                j -= 1
        if j < rank:
            low = i
        if rank < i:
            high = j
    value = values[rank]
    if place == rank:
        return value
    after = values[rank + 1]
    for i in range(rank + 2, count):
        if values[i] < after:
            after = values[i]
    return value + (place - rank) * (after - value)


@compiled
def mark_peaks(means, above, least, marked):  # type: ignore[no-untyped-def]
    """Mark blocks higher than all around them and than the node's `least` above the background."""
    nz, ny, nx = means.shape
    around = np.empty(_MOST_AROUND, np.float32)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = above[z, y, x]
                lowest = least[z // NODE_STEP, y // NODE_STEP, x // NODE_STEP]
                # NaN is neither above nor below.
                if not (value > lowest and value > 0 and _is_highest(above, z, y, x, value)):
                    continue
                n = np.int64(0)  # a plain 0 would be a type of its own for `quantile`
                for c in range(max(0, z - PROMINENCE_REACH), min(nz, z + PROMINENCE_REACH + 1)):
                    for b in range(max(0, y - PROMINENCE_REACH), min(ny, y + PROMINENCE_REACH + 1)):
                        for a in range(
                            max(0, x - PROMINENCE_REACH), min(nx, x + PROMINENCE_REACH + 1)
                        ):
                            if not math.isnan(means[c, b, a]):
                                around[n] = means[c, b, a]
                                n += 1
                if means[z, y, x] - quantile(around, n, 0.5) > PROMINENCE * value:
                    marked[z, y, x] = True


@compiled
def _is_highest(above, z, y, x, value):  # type: ignore[no-untyped-def]
    """Of equal neighbours the last counts, so that a plateau is one peak."""
    nz, ny, nx = above.shape
    here = (z * ny + y) * nx + x
    for c in range(max(0, z - PEAK_REACH), min(nz, z + PEAK_REACH + 1)):
        for b in range(max(0, y - PEAK_REACH), min(ny, y + PEAK_REACH + 1)):
            for a in range(max(0, x - PEAK_REACH), min(nx, x + PEAK_REACH + 1)):
                other = above[c, b, a]
                if other > value or (other == value and (c * ny + b) * nx + a > here):
                    return False
    return True


@compiled
def normalise_planes(image, dark, bright, low, high, weight, out):  # type: ignore[no-untyped-def]
    """Normalise planes, given background and contrast of each row at the nodes along x."""
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                i, h, s = low[x], high[x], weight[x]
                value = image[z, y, x] - (dark[z, y, i] * (1 - s) + dark[z, y, h] * s)
                value /= bright[z, y, i] * (1 - s) + bright[z, y, h] * s
                if value > 1:
                    value = 1 + math.log(value)
                elif value < DARKEST:
                    value = DARKEST
                out[z, y, x] = value
