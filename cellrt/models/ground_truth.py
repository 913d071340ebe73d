"""What label images say beyond cells (above 0) and background (0), and how patches cut them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cellrt.geometry import across_planes

UNKNOWN = -1
"""Label of voxels that do not count: outside the stack, or unlabelled in sparse ground truth."""


def without_margin(
    volume: npt.NDArray[Any], margin: int, *, planar: bool = False
) -> npt.NDArray[Any]:
    """Cut off what was seen beyond a patch, at both ends of the last three axes.

    Beyond one of a planar network nothing was seen along z.
    """
    margins = across_planes(margin, planar, 0)
    z, y, x = (slice(m, n - m) for m, n in zip(margins, volume.shape[-3:], strict=True))
    return volume[..., z, y, x]
