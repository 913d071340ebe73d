"""The whole way from a stack to cells: ``segment`` in Python, and what the command line calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError, UsageError
from cellrt.runtime.cell_size_search import refine_scale
from cellrt.runtime.decoding.registry import Decoder, decoder_for
from cellrt.runtime.grid.scale import CellScale, known_scale
from cellrt.runtime.image.formats.tiff import read_volume
from cellrt.runtime.image.volume import Volume, volume_from_array
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.network.engines.ladder import PRECISIONS, EngineChoice, choose_engine
from cellrt.runtime.network.run import network_fields, prepare_image
from cellrt.runtime.plan import Plan, make_plan
from cellrt.runtime.progress import Progress, Silent, StageClock
from cellrt.runtime.results.record import run_record

if TYPE_CHECKING:
    from cellrt.runtime.results.table import CellTable


@dataclass(frozen=True)
class Options:
    """Choices of one run; ``None`` leaves the decision to file, model card or machine.

    Parameters
    ----------
    diameter : float, optional
        Cell diameter in pixels of the input (x). It is estimated when neither it nor a voxel size
        is known.
    anisotropy : float, optional
        Spacing in z over spacing in x; from the voxel size when that is known.
    engine : str, optional
        Obeyed or refused; see :func:`cellrt.runtime.network.engines.ladder.choose_engine`.
    precision : {"auto", "fp32", "fp16", "bf16", "int8"}
        Obeyed or refused by the engine.
    mode : {"fast", "exact"}
        Decoder mode.
    tile : (int, int, int), optional
        Tile (z, y, x) in voxels of the model's grid.
    halo : int, optional
        Voxels dropped at inner tile faces.
    decoder : str, optional
        Another decoder that fits the model's outputs, with its own default parameters; see
        :func:`cellrt.runtime.decoding.registry.decoder_for`.
    min_area : int, optional
        For the decoder ``"tascan"``: voxel faces on the model's grid in which two supervoxels of
        one cell touch at least.
    """

    diameter: float | None = None
    anisotropy: float | None = None
    engine: str | None = None
    precision: str = "auto"
    mode: Literal["fast", "exact"] = "fast"
    tile: tuple[int, int, int] | None = None
    halo: int | None = None
    decoder: str | None = None
    min_area: int | None = None


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


@dataclass
class Job:
    """A run that is planned and can be started: see :func:`prepare` and :func:`run`."""

    volume: Volume
    model: ModelFile
    options: Options
    choice: EngineChoice
    decoder: Decoder
    scale: CellScale
    plan: Plan
    clock: StageClock
    warnings: list[str] = field(default_factory=list)


def segment(
    source: str | Path | NDArray[np.generic],
    model: str | Path = "nuclei",
    *,
    voxel_size: Sequence[float] | None = None,
    diameter: float | None = None,
    anisotropy: float | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    axes: str | None = None,
    engine: str | None = None,
    precision: str = "auto",
    mode: Literal["fast", "exact"] = "fast",
    tile: tuple[int, int, int] | None = None,
    halo: int | None = None,
    decoder: str | None = None,
    min_area: int | None = None,
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
    axes : str, optional
        One letter per dimension out of T, C, Z, Y, X.
    engine, precision, mode, tile, halo, decoder, min_area
        See :class:`Options`.
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
    options = Options(diameter, anisotropy, engine, precision, mode, tile, halo, decoder, min_area)
    clock = StageClock(progress or Silent())
    with clock.stage("read"):
        if isinstance(source, (str, Path)):
            volume = read_volume(
                source, axes=axes, voxel_size_um=voxel_size, channel=channel, time=time
            )
        else:
            volume = volume_from_array(
                source, axes=axes, voxel_size_um=voxel_size, channel=channel, time=time
            )
    return run(prepare(volume, open_model(model), options, clock))


def prepare(volume: Volume, model: ModelFile, options: Options, clock: StageClock) -> Job:
    """Decide engine, scale and tiles, and check them; nothing big is computed yet.

    Raises
    ------
    CellrtError
        As :func:`segment`.
    """
    card = model.card
    if options.mode not in ("fast", "exact"):
        raise UsageError(f"no decoder mode {options.mode!r}; choose fast or exact")
    if options.precision not in PRECISIONS:
        raise UsageError(
            f"no precision {options.precision!r}; choose one of {', '.join(PRECISIONS)}"
        )
    if volume.is_2d and not card.two_dimensional:
        raise InputError(
            f"the image has one slice and model {card.name!r} needs a stack: it was not trained "
            "on single slices; give a z-stack, or another --model"
        )
    choice = choose_engine(options.engine)
    # Who asks for a CPU engine wants the GPU left alone, most likely for something else.
    decoder = decoder_for(
        card,
        options.decoder,
        min_area=options.min_area,
        keep_to_cpu=f"as --engine {choice.name} was asked for" if choice.spares_gpu else "",
    )
    if options.mode not in decoder.modes:
        raise UsageError(
            f"the decoder {decoder.name} has no mode {options.mode!r}; "
            f"it has {', '.join(decoder.modes)}"
        )
    warnings: list[str] = []
    with clock.stage("cell size"):
        start, spacing, spacing_origin = known_scale(
            volume, card, diameter=options.diameter, anisotropy=options.anisotropy
        )
        scale = refine_scale(
            volume.image,
            start,
            spacing,
            spacing_origin,
            model=model,
            choice=choice,
            decoder=decoder,
            precision=options.precision,
            warnings=warnings,
            note=clock.progress.note,
        )
    for text in (
        f"cell diameter {scale.diameter_pixels:.3g} pixels: {scale.diameter_origin}",
        f"spacing z:y:x {':'.join(f'{s:.3g}' for s in scale.spacing)}: {scale.spacing_origin}",
    ):
        clock.progress.note(text)
    model_shape = scale.model_shape(volume.shape, card)
    if volume.is_2d:
        # One slice is shown to the network as a slab of equal slices as thick as a cell.
        model_shape = (math.ceil(card.diameter_voxels / 8) * 8, *model_shape[1:])
    plan = make_plan(
        volume.shape,
        model_shape,
        card,
        decoder,
        image_bytes=volume.data.nbytes,
        tile=options.tile or choice.fixed_tile(model),
        halo=options.halo,
    )
    plan.check_memory()
    return Job(volume, model, options, choice, decoder, scale, plan, clock, warnings)


def run(job: Job) -> Segmentation:
    """Compute a planned job; see :func:`segment` for results and errors."""
    clock, volume, card = job.clock, job.volume, job.model.card
    with clock.stage("prepare image"):
        image = prepare_image(volume.image, job.plan.grid.shape, card.normalisation)
    network_seconds, precision, device = 0.0, "", ""
    if image.intensity.is_constant:
        job.warnings.append("the image is constant: there is nothing to segment")
        labels = np.zeros(volume.shape, np.int32)
    else:
        # Kernels compile on the very first run only; the network hides that time.
        with ThreadPoolExecutor(1, thread_name_prefix="compile") as compiler:
            compiling = compiler.submit(_warm_up, job)
            with clock.stage("network", job.plan.model_voxels, "voxels"):
                note = clock.progress.note
                session = job.choice.load(
                    job.model, job.plan.grid.tile, job.options.precision, note
                )
                kept, network_seconds = network_fields(
                    image, job.plan.grid, session, job.decoder, clock.progress.advance, note
                )
            precision, device = session.precision, session.device
            del session, image
            compiling.result()
        with clock.stage("cells"):
            labels = _decode(job, kept)
        del kept
        if job.decoder.place.fell_back:
            job.warnings.append(job.decoder.place.reason)
    with clock.stage("measure"):
        from cellrt.runtime.results.table import measure

        table = measure(
            labels,
            volume.data,
            volume.full_voxel_size_um,
            anisotropy=job.scale.spacing[0],
        )
    if len(table) == 0:
        job.warnings.append("no cells were found")
    for text in job.warnings:
        clock.progress.note(text, warning=True)
    record = run_record(
        job, cells=len(table), network_seconds=network_seconds, precision=precision, device=device
    )
    flat = volume.is_2d and "Z" not in volume.file_axes
    return Segmentation(labels[0] if flat else labels, table, record, volume)


def _warm_up(job: Job) -> None:
    """Compile what comes after the network."""
    from cellrt.runtime.results import table

    job.decoder.warm_up()
    table.warm_up()


def _decode(job: Job, kept: NDArray[Any]) -> NDArray[np.int32]:
    """Labels on the input's grid."""
    labels = job.decoder.decode(kept, mode=job.options.mode)
    if labels.shape == job.volume.shape:
        return labels
    return job.decoder.upsample(labels, kept, job.volume.shape)
