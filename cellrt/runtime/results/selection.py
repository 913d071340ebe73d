"""Which of the cells that were found are wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.labels.regions import relabel
from cellrt.runtime.results.table import CellTable


def select(
    labels: NDArray[np.int32],
    table: CellTable,
    *,
    min_confidence: float | None = None,
    min_size: float | None = None,
    max_size: float | None = None,
) -> tuple[CellTable, dict[str, int]]:
    """Take unwanted cells out of the labels, in place, and out of the table.

    Parameters
    ----------
    labels : (z, y, x) int32 array
    table : CellTable
        One row per label.
    min_confidence : float, optional
        The table has a column of confidence then.
    min_size, max_size : float, optional
        Voxels of the image, pixels where it has one slice.

    Returns
    -------
    table : CellTable
        The cells that stay, numbered from 1 as in the labels.
    left_out : dict of str to int
        How many cells each demand left out; a cell may count more than once.
    """
    size = table["volume_voxels"] if "volume_voxels" in table.columns else table["area_voxels"]
    unwanted: dict[str, NDArray[np.bool_]] = {}
    if min_confidence is not None:
        unwanted["min_confidence"] = table["confidence"] < min_confidence
    if min_size is not None:
        unwanted["min_size"] = size < min_size
    if max_size is not None:
        unwanted["max_size"] = size > max_size
    keep = ~np.any([np.zeros(len(table), bool), *unwanted.values()], axis=0)
    if not keep.all():
        numbers = np.zeros(int(table["id"].max()) + 1, np.int32)
        numbers[table["id"][keep]] = np.arange(1, np.count_nonzero(keep) + 1)
        relabel(labels, numbers)
        table = table.only(keep)
    return table, {name: int(np.count_nonzero(cells)) for name, cells in unwanted.items()}
