"""The whole way from a stack to cells, for one image or a thousand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cellrt.errors import CellrtWarning, UsageError
from cellrt.runtime import preparation, stages
from cellrt.runtime.image.reading import Source, read, refuse_known
from cellrt.runtime.job import Job, Options
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.progress import Progress, Silent, StageClock
from cellrt.runtime.results.segmentation import Segmentation
from cellrt.runtime.run import finish, run
from cellrt.wording import in_python

# A probe for the cells' size, tiles of two shapes of images, and one more.
_SESSIONS = 4


class Segmenter:
    """A model with its engine, loaded once.

    Parameters
    ----------
    model : str, Path or ModelFile
        Name of a bundled model, path of an exported ONNX file, or what ``cellrt.load_model``
        returns.
    engine, precision, mode, tile, halo, decoder, decoder_parameters, min_confidence,
    min_size, max_size, slices, stitch
        See :class:`cellrt.runtime.job.Options`.
    views : bool
        Show a model of single slices the stack's planes along all three axes, as
        ``"nuclei-cellpose2d"`` does.
    progress : bool or Progress
        True shows a bar on standard error; an object receives stages, progress and notes.

    Examples
    --------
    >>> import cellrt, numpy as np
    >>> cells = cellrt.Segmenter("nuclei")
    >>> [len(cells(image).table) for image in np.zeros((2, 8, 32, 32), np.uint8)]
    [0, 0]

    Decode again with other parameters, without running the network again:

    >>> fields = cells.predict(np.zeros((8, 32, 32), np.uint8))
    >>> len(cells.decode(fields, {"foreground_threshold": 0.3}).table)
    0
    """

    def __init__(
        self,
        model: str | Path | ModelFile = "nuclei",
        *,
        engine: str | None = None,
        precision: str = "auto",
        mode: Literal["fast", "exact"] = "fast",
        tile: tuple[int, int, int] | None = None,
        halo: int | None = None,
        decoder: str | None = None,
        decoder_parameters: Mapping[str, Any] | None = None,
        min_confidence: float | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        slices: bool = False,
        stitch: float | None = None,
        views: bool = False,
        progress: bool | Progress = False,
    ) -> None:
        self.options = Options(
            engine=engine,
            precision=precision,
            mode=mode,
            tile=tile,
            halo=halo,
            decoder=decoder,
            decoder_parameters={} if decoder_parameters is None else decoder_parameters,
            min_confidence=min_confidence,
            min_size=min_size,
            max_size=max_size,
            slices=slices,
            stitch=stitch,
        )
        opened = model if isinstance(model, ModelFile) else open_model(model)
        if views:
            opened = opened.in_views()
        self.network = preparation.load(opened, self.options, keep=_SESSIONS)
        preparation.check(self.network, self.options)
        self._progress = progress

    def __call__(self, source: Source, **known: Any) -> Segmentation:
        """Segment one image; parameters, results and errors are those of :func:`segment`."""
        result = self._segment(source, **known)
        _warn(result.warnings)
        return result

    def _segment(self, source: Source, **known: Any) -> Segmentation:
        with _shown(self._progress) as progress:
            clock = StageClock(progress)
            return run(self.prepare(source, clock=clock, **known), clock)

    def prepare(
        self,
        source: Source,
        *,
        voxel_size: Sequence[float] | None = None,
        diameter: float | None = None,
        anisotropy: float | None = None,
        intensity: tuple[float, float] | None = None,
        channel: int | str | None = None,
        time: int | None = None,
        series: int | str | None = None,
        axes: str | None = None,
        clock: StageClock | None = None,
    ) -> Job:
        """Read an image and decide everything, without running the network over it.

        Parameters are those of :func:`segment`; ``clock`` adds up the seconds of stages.
        """
        clock = clock or StageClock(Silent())
        options = replace(
            self.options, diameter=diameter, anisotropy=anisotropy, intensity=intensity
        )
        with clock.stage("read"):
            volume = read(
                source, voxel_size=voxel_size, channel=channel, time=time, series=series, axes=axes
            )
        return preparation.prepare(volume, self.network, options, clock)

    def predict(self, source: Source | Job, **known: Any) -> stages.Fields:
        """Run the network over an image, or over a prepared job.

        The result is decoded as often as one likes; parameters are those of :func:`segment`.
        """
        with _shown(self._progress) as progress:
            clock = StageClock(progress)
            if isinstance(source, stages.Fields):
                raise UsageError(
                    "predict was given fields, which it returns: decode takes them, and predict "
                    "an image or a prepared job"
                )
            if isinstance(source, Job):
                refuse_known(known, "a prepared job")
                return stages.predict(source, clock)
            return stages.predict(self.prepare(source, clock=clock, **known), clock)

    def decode(
        self,
        fields: stages.Fields,
        parameters: Mapping[str, Any] | None = None,
        *,
        mode: Literal["fast", "exact"] | None = None,
    ) -> Segmentation:
        """Find the cells in fields; the network does not run again and the fields stay the same.

        Parameters
        ----------
        fields : Fields
            From :meth:`predict`.
        parameters : mapping, optional
            Decoder parameters by name that replace those of the job.
        mode : {"fast", "exact"}, optional
            The job's by default.

        Raises
        ------
        UsageError
            What was given is no fields, a parameter that the decoder does not have, or a value
            that it refuses.
        """
        if not isinstance(fields, stages.Fields):
            raise UsageError(
                f"decode was given {_kind_of(fields)}; expected the fields that predict returns"
            )
        if not isinstance(parameters, Mapping | None):
            raise UsageError(
                f"parameters are {_kind_of(parameters)}; expected values by name, such as "
                '{"foreground_threshold": 0.5}'
            )
        job = fields.job
        options = replace(
            job.options,
            decoder_parameters={**job.options.decoder_parameters, **(parameters or {})},
            mode=mode or job.options.mode,
        )
        decoder = preparation.make_decoder(job.network, options)
        job = replace(job, options=options, decoder=decoder)
        with _shown(self._progress) as progress:
            clock = StageClock(progress, dict(fields.seconds))
            result = finish(replace(fields, job=job), clock)
        _warn(result.warnings)
        return result


def segment(
    source: Source,
    model: str | Path | ModelFile | None = None,
    *,
    voxel_size: Sequence[float] | None = None,
    diameter: float | None = None,
    anisotropy: float | None = None,
    intensity: tuple[float, float] | None = None,
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
    min_confidence: float | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    slices: bool = False,
    stitch: float | None = None,
    views: bool = False,
    progress: bool | Progress = False,
) -> Segmentation:
    """Segment the cells of a stack.

    For many images, make one :class:`Segmenter`: the network is compiled once.

    Parameters
    ----------
    source : str, Path, ndarray or Volume
        A file (TIFF, ``.npy``, ``.npz``, ``file.h5:dataset``, ``store.zarr:array``), or an array
        (z, y, x) or (y, x) of any real dtype; other axes with ``axes``.
    model : str, Path or ModelFile
        Name of a bundled model (``"nuclei"``, ``"membranes"``), path of an exported ONNX file, or
        what ``cellrt.load_model`` returns. Without it ``"nuclei"``, or for one slice a bundled
        model of single slices.
    voxel_size : (z, y, x), optional
        In µm; overrides the file's.
    diameter : float, optional
        Cell diameter in pixels along x; overrides the estimate and the voxel size.
    anisotropy : float, optional
        Spacing in z over spacing in x.
    intensity : (float, float), optional
        Grey values of the background and of a typical cell; measured otherwise.
    channel : int or str, optional
        Channel to segment, counted from 1, or its name.
    time : int, optional
        Time point, counted from 1.
    series : int or str, optional
        Image to segment of a file that holds several, counted from 1, or its name.
    axes : str, optional
        One letter per dimension out of T, C, Z, Y, X.
    engine, precision, mode, tile, halo, decoder, decoder_parameters, min_confidence,
    min_size, max_size, slices, stitch
        See :class:`cellrt.runtime.job.Options`.
    views : bool
        Show a model of single slices the stack's planes along all three axes, as
        ``"nuclei-cellpose2d"`` does.
    progress : bool or Progress
        True shows a bar on standard error; an object receives stages, progress and notes.

    Returns
    -------
    Segmentation

    Warns
    -----
    CellrtWarning
        What a user should know about the result; also in its ``warnings``.

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
    if model is None:
        model = preparation.default_model(
            source, voxel_size=voxel_size, channel=channel, time=time, series=series, axes=axes
        )
    segmenter = Segmenter(
        model,
        engine=engine,
        precision=precision,
        mode=mode,
        tile=tile,
        halo=halo,
        decoder=decoder,
        decoder_parameters=decoder_parameters,
        min_confidence=min_confidence,
        min_size=min_size,
        max_size=max_size,
        slices=slices,
        stitch=stitch,
        views=views,
        progress=progress,
    )
    segmenter.network.keep = 0
    result = segmenter._segment(
        source,
        voxel_size=voxel_size,
        diameter=diameter,
        anisotropy=anisotropy,
        intensity=intensity,
        channel=channel,
        time=time,
        series=series,
        axes=axes,
    )
    _warn(result.warnings)
    return result


def _kind_of(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


@contextmanager
def _shown(progress: bool | Progress) -> Iterator[Progress]:
    """A progress object for a while; a bar is taken away again."""
    if progress is not True:
        yield progress or Silent()
        return
    from cellrt.runtime.progress_bar import Terminal

    bar = Terminal(in_python=True)
    try:
        yield bar
    finally:
        bar.close()


def _warn(texts: Sequence[str]) -> None:
    for text in texts:
        # The line of the user's that asked for cells.
        warnings.warn(in_python(text), CellrtWarning, stacklevel=3)
