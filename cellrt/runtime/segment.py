"""The whole way from a stack to cells, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.image.formats import read_volume
from cellrt.runtime.image.volume import volume_from_array
from cellrt.runtime.job import Options
from cellrt.runtime.model.file import open_model
from cellrt.runtime.progress import Progress, Silent, StageClock
from cellrt.runtime.results.segmentation import Segmentation
from cellrt.runtime.stages import prepare, run


def segment(
    source: str | Path | NDArray[np.generic],
    model: str | Path = "nuclei",
    *,
    voxel_size: Sequence[float] | None = None,
    diameter: float | None = None,
    anisotropy: float | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    series: int | str | None = None,
    axes: str | None = None,
    engine: str | None = None,
    precision: str = "auto",
    mode: Literal["fast", "exact"] = "fast",
    tile: tuple[int, int, int] | None = None,
    halo: int | None = None,
    decoder: str | None = None,
    decoder_parameters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Segment the cells of a stack.

    Parameters
    ----------
    source : str, Path or ndarray
        A TIFF file, or an array (z, y, x) or (y, x) of any real dtype; other axes with ``axes``.
    model : str or Path
        Name of a bundled model (``"nuclei"``, ``"membranes"``) or path of an exported ONNX file.
    voxel_size : (z, y, x), optional
        In µm; overrides the file's.
    diameter : float, optional
        Cell diameter in pixels along x; overrides the estimate and the voxel size.
    anisotropy : float, optional
        Spacing in z over spacing in x.
    channel : int or str, optional
        Channel to segment, counted from 1, or its name.
    time : int, optional
        Time point, counted from 1.
    series : int or str, optional
        Image to segment of a file that holds several, counted from 1, or its name.
    axes : str, optional
        One letter per dimension out of T, C, Z, Y, X.
    engine, precision, mode, tile, halo, decoder, decoder_parameters
        See :class:`cellrt.runtime.job.Options`.
    progress : Progress, optional
        Receives stages, progress and notes; silent by default.

    Returns
    -------
    Segmentation

    Raises
    ------
    cellrt.errors.InputError
        The image or the model cannot be used.
    cellrt.errors.UsageError
        Options that make no sense.
    cellrt.errors.EngineError
        The engine cannot be had.
    cellrt.errors.ResourceError
        Too little memory.

    Examples
    --------
    >>> import cellrt, numpy as np
    >>> result = cellrt.segment(np.zeros((8, 32, 32), np.uint8), model="nuclei")
    >>> len(result.table), result.labels.shape
    (0, (8, 32, 32))
    """
    options = Options(
        diameter=diameter,
        anisotropy=anisotropy,
        engine=engine,
        precision=precision,
        mode=mode,
        tile=tile,
        halo=halo,
        decoder=decoder,
        decoder_parameters=decoder_parameters or {},
    )
    clock = StageClock(progress or Silent())
    with clock.stage("read"):
        if isinstance(source, (str, Path)):
            volume = read_volume(
                source,
                axes=axes,
                voxel_size_um=voxel_size,
                channel=channel,
                time=time,
                series=series,
            )
        else:
            volume = volume_from_array(
                source, axes=axes, voxel_size_um=voxel_size, channel=channel, time=time
            )
    return run(prepare(volume, open_model(model), options, clock))
