"""What label images say beyond cells (above 0) and background (0), and how patches cut them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

UNKNOWN = -1
"""Label of voxels that do not count: outside the stack, or unlabelled in sparse ground truth."""


def without_margin(volume: npt.NDArray[Any], margin: int) -> npt.NDArray[Any]:
    """Cut off what was seen beyond a patch, at both ends of the last three axes."""
    z, y, x = (slice(margin, size - margin) for size in volume.shape[-3:])
    return volume[..., z, y, x]
