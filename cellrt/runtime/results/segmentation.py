"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.image.volume import Volume

if TYPE_CHECKING:
    from cellrt.runtime.results.table import CellTable


@dataclass(frozen=True)
class Segmentation:
    """Result of a run.

    Attributes
    ----------
    labels : ndarray, int32, shape (z, y, x), or (y, x) for a 2D image
        0 is background, cells are numbered from 1.
    table : CellTable
        One row per cell, in µm where the voxel size is known.
    record : dict
        What ran and how, JSON-ready: model hash, engine and why, parameters, versions, seconds
        per stage, peak memory, warnings.
    volume : Volume
        The input.
    """

    labels: NDArray[np.int32]
    table: CellTable
    record: dict[str, Any]
    volume: Volume

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about this result."""
        return tuple(self.record["warnings"])
