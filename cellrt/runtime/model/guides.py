"""What a network with harmonic embeddings is told of where a tile lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cellrt.geometry import Shape
    from cellrt.runtime.model.card_parts import Guides


def turns(origin: npt.ArrayLike, frequencies: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """How far guides have turned at a place, in parts of a cycle from -0.5 to 0.5.

    Parameters
    ----------
    origin : (..., 2) array
        Position (y, x).
    frequencies : (n, 2) array
        In cycles per pixel.

    Returns
    -------
    (..., n) float32 array
        Computed in float64, as far from an image's corner float32 holds no angle.
    """
    cycles = np.asarray(origin, np.float64) @ np.asarray(frequencies, np.float64).T
    found: npt.NDArray[np.float32] = (cycles - np.rint(cycles)).astype(np.float32)
    return found


def turns_at(guides: Guides, starts: Sequence[Shape]) -> npt.NDArray[np.float32]:
    """The same for tiles that begin at some voxels (z, y, x) of the model's grid."""
    return turns([start[1:] for start in starts], guides.frequencies)
