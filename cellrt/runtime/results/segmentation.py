"""The result of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.image.volume import Volume
from cellrt.wording import counted, in_python

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

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.labels.shape)
        return f"<Segmentation: {counted(len(self.table), 'cell')} in {shape} voxels>"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about this result."""
        return tuple(in_python(text) for text in self.record["warnings"])

    def save(
        self,
        labels: str | os.PathLike[str] | None = None,
        *,
        preview: bool = True,
        overwrite: bool = False,
        rois: bool = False,
        overlaps: bool = False,
    ) -> dict[str, Path]:
        """Write labels, table, preview and record, all together or not at all.

        Parameters
        ----------
        labels : str or Path, optional
            The label file, a TIFF; the others go beside it. Or a folder, which exists or ends in
            a slash. By default STACK.labels.tif beside the stack, or STACK.t2.c1.labels.tif where
            a time point or a channel was chosen of several.
        preview : bool
            Draw the preview picture.
        overwrite : bool
            Replace existing results, a link by a file; without a new preview the old one goes.
        rois : bool
            Write the outline of each cell, too, as a set of ImageJ ROIs. Needs the extra ``rois``.
        overlaps : bool
            Write whole cells, too, with what lies under a cell that crosses them, as a stack of
            labels of which no two overlap in a layer; ROIs are then theirs. For one slice and the
            decoder ``embedding``.

        Returns
        -------
        dict
            Paths of ``"labels"``, ``"cells"``, ``"preview"`` and ``"run"``, and of ``"rois"`` and
            ``"overlaps"`` where these are written.

        Raises
        ------
        UsageError
            No path, and the image was no file; one that is the input's, or no TIFF's; ROIs without
            their package, overlaps of a stack or another decoder's.
        InputError
            A result exists and ``overwrite`` is off, or is no regular file; another run is writing
            it; the folder cannot be written to.
        ResourceError
            The disk is full.
        """
        from cellrt.runtime.results.save import save

        extras = [name for name, wanted in (("rois", rois), ("overlaps", overlaps)) if wanted]
        return save(self, labels, preview=preview, overwrite=overwrite, extras=extras)
