"""Whether an image was drawn, as masks and labels are, and not recorded."""

from __future__ import annotations

import math

import numpy as np

from cellrt.runtime.image.source import Voxels

# Planes that are looked at, and the pixels along y and x of their middle.
PLANES, EDGE = 3, 1024
# Of pixels that are no background, so many equal one beside them. What is drawn ends sharply: in
# 560 label images of nuclei and cells 0.987 to 1 of them do. Recordings have noise, and cells in
# them a soft edge: of 512, of 8 and of 16 bits, 0.89 at most; 0.977 with some three grey values.
# Of two values in all, what came from a threshold is ragged (0.63 and more of noisy nuclei), and
# single photons hardly touch.
FLAT, FLAT_OF_TWO = 0.985, 0.5


def drawing(image: Voxels) -> str | None:
    """Say what an image is, where it is no recording.

    Parameters
    ----------
    image : ndarray or VoxelSource, shape (z, y, x)

    Returns
    -------
    str or None
        ``"a mask"``, of two values, or ``"a label image"``; None for recordings, and where the
        planes that are looked at say nothing.
    """
    depth, height, width = image.shape
    y, x = (slice(max(0, n // 2 - EDGE // 2), n // 2 + EDGE // 2 + 1) for n in (height, width))
    drawn = flat = 0
    of_two, ends = True, set()
    for z in sorted({math.floor(depth * (n + 0.5) / PLANES) for n in range(PLANES)}):
        plane = np.asarray(image[z : z + 1, y, x])[0]
        low, high = plane.min(), plane.max()
        ends |= {low.item(), high.item()}
        of_two = of_two and len(ends) <= 2 and bool(((plane == low) | (plane == high)).all())
        middle = plane[:, 1:-1]
        foreground = middle != low
        alike = (middle == plane[:, :-2]) | (middle == plane[:, 2:])
        drawn += np.count_nonzero(foreground)
        flat += np.count_nonzero(foreground & alike)
        if flat < (FLAT_OF_TWO if of_two else FLAT) * drawn:
            return None
    if not drawn:
        return None
    return "a mask" if of_two else "a label image"
