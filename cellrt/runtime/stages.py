"""The stages of a run: planned first, then computed, one function and one result each.

    job = prepare(volume, network, options, clock)
    fields = predict(job, clock)
    decoded = decode(fields)               # as often as one likes, with other decoders
    table = measure(decoded.labels, volume)

:class:`cellrt.runtime.segment.Segmenter` drives them for those who want cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compile_ahead import compile_ahead
from cellrt.compiled import announced
from cellrt.errors import InputError, UsageError
from cellrt.geometry import Shape
from cellrt.limits import check_process_limits
from cellrt.runtime.cell_size_search import refine_scale
from cellrt.runtime.decoding.base import Decoded, Decoder, Mode, Place
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.findings import findings
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.model_image import look_at, measure_intensity, prepare_image
from cellrt.runtime.grid.scale import UNKNOWN_SPACING, CellScale, known_scale, slab_planes
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.image.voxel_size import doubts_about_anisotropy
from cellrt.runtime.job import Job, Options
from cellrt.runtime.machine.transfer import host_array
from cellrt.runtime.model.card import LocalBrightness
from cellrt.runtime.network.engines.base import PRECISIONS
from cellrt.runtime.network.engines.ladder import EngineChoice, choose_engine
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.plan import Plan, check_halo, make_plan
from cellrt.runtime.progress import StageClock

if TYPE_CHECKING:
    from cellrt.runtime.model.file import ModelFile
    from cellrt.runtime.results.confidence import Quality
    from cellrt.runtime.results.table import CellTable


@dataclass(frozen=True, eq=False)
class Fields:
    """What the network said of an image, in the decoder's own form.

    Fields can be pickled, to be decoded in another process or on another day; the voxels of a file
    that are read when they are needed stay in the file.

    Attributes
    ----------
    job : Job
    kept : object or None
        As the decoder's collector keeps it, on a GPU if the decoder takes it from there; no decoder
        changes it. None where the image is constant and the network did not run.
    precision, device : str
        As the engine ran; empty where it did not.
    network_seconds : float
        Time inside the engine.
    seconds : dict
        Of the stages so far.
    """

    job: Job
    kept: Any
    precision: str = ""
    device: str = ""
    network_seconds: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs, which sees no memory of this one's GPU."""
        kept = None if self.kept is None else host_array(self.kept)
        return {**self.__dict__, "kept": kept}


def load(
    model: ModelFile, options: Options, *, keep: int = 0, choice: EngineChoice | None = None
) -> LoadedModel:
    """Choose the engine for a model, unless it is chosen; it loads when the first tile comes.

    Raises
    ------
    UsageError
        An engine or a precision that is not known.
    EngineError
        The engine asked for cannot be had here, or cannot run this model, also not in this
        precision, or none can.
    InputError
        The file beside the model that the engine would take is not of this model.
    ResourceError
        The limits of this process leave it too little memory.
    """
    check_process_limits()
    if options.precision not in PRECISIONS:
        raise UsageError(
            f"no precision {options.precision!r}; choose one of {', '.join(PRECISIONS)}"
        )
    if choice is None:
        choice = choose_engine(
            options.engine, model, tile=options.tile, precision=options.precision
        )
    else:
        tile = options.tile or choice.fixed_tile(model, options.precision)
        choice.refuse(model, tile, options.precision)
    return LoadedModel(model, choice, options.precision, keep)


def check(network: LoadedModel, options: Options) -> Decoder:
    """Refuse options that no image could make right, and make the decoder that they ask for.

    Raises
    ------
    UsageError, InputError
        A mode, a decoder or one of its parameters, or a halo that is not possible.
    """
    if options.mode not in ("fast", "exact"):
        raise UsageError(f"no decoder mode {options.mode!r}; choose fast or exact")
    decoder, card = make_decoder(network, options), network.model.card
    if options.halo is not None:
        check_halo(options.halo, card, options.tile or network.fixed_tile)
    if options.min_confidence is not None and (
        card.confidence is None or decoder.name != card.decoder
    ):
        raise UsageError(
            f"--min-confidence cannot be asked for: model {card.name!r} with the decoder "
            f"{decoder.name} says nothing about the confidence of cells"
        )
    return decoder


def prepare(volume: Volume, network: LoadedModel, options: Options, clock: StageClock) -> Job:
    """Decide scale, intensities and tiles, and check them; nothing big is computed yet.

    Raises
    ------
    CellrtError
        As :func:`cellrt.runtime.segment.segment`.
    """
    with announced(clock.progress.note):
        return _prepare(volume, network, options, clock)


def _prepare(volume: Volume, network: LoadedModel, options: Options, clock: StageClock) -> Job:
    card = network.model.card
    decoder = check(network, options)
    if volume.is_2d and not card.two_dimensional:
        raise InputError(
            f"the image has one slice and model {card.name!r} needs a stack: it was not trained "
            "on single slices; give a z-stack, or another --model"
        )
    if volume.is_2d and options.min_confidence is not None:
        raise UsageError("--min-confidence cannot be asked for of one slice; it is known in stacks")
    chosen = _chosen_range(options)
    # The record has what was asked for as it was read, also where texts were given.
    asked = {name: getattr(decoder.parameters, name) for name in options.decoder_parameters}
    options = replace(options, decoder_parameters=asked)
    warnings = list(volume.warnings)
    with clock.stage("look"):
        image = look_at(volume.image, card.normalisation)
    with network.in_use, clock.stage("cell size"):
        start, spacing, spacing_origin = known_scale(
            volume, card, diameter=options.diameter, anisotropy=options.anisotropy
        )
        if spacing_origin == UNKNOWN_SPACING:
            warnings.append(f"the distance between slices is {UNKNOWN_SPACING}")
        if options.anisotropy is not None and not volume.is_2d:
            warnings += doubts_about_anisotropy(options.anisotropy, volume.voxel_size_um)
        scale = refine_scale(
            image,
            start,
            spacing,
            spacing_origin,
            network=network,
            decoder=decoder,
            warnings=warnings,
            note=clock.progress.note,
        )
    for text in (
        f"cell diameter {scale.diameter_pixels:.3g} pixels: {scale.diameter_origin}",
        f"spacing z:y:x {':'.join(f'{s:.3g}' for s in scale.spacing)}: {scale.spacing_origin}",
    ):
        clock.progress.note(text)
    warnings += scale.doubts(volume.shape)
    model_shape = scale.model_shape(volume.shape, card)
    if volume.is_2d:
        # One slice is shown to the network as a slab of equal slices as thick as a cell.
        model_shape = (slab_planes(card.diameter_voxels), *model_shape[1:])
    plan = _plan(volume, model_shape, network, decoder, options, scale)
    with clock.stage("intensity"):
        intensity = measure_intensity(image, model_shape, card.normalisation, chosen)
        local = isinstance(card.normalisation, LocalBrightness)
        rule = "chosen by the user" if chosen else "local brightness" if local else "percentiles"
        found = findings(image, model_shape, intensity, rule)
    clock.progress.note(f"intensity {found.line()}")
    return Job(
        volume,
        image,
        network,
        options,
        decoder,
        scale,
        plan,
        intensity,
        found,
        (*warnings, *found.warnings()),
    )


def _plan(
    volume: Volume,
    model_shape: Shape,
    network: LoadedModel,
    decoder: Decoder,
    options: Options,
    scale: CellScale,
) -> Plan:
    """Lay out tiles for the engine there is, and check the memory that they take."""
    plan = make_plan(
        volume.shape,
        model_shape,
        network.model.card,
        decoder,
        scale=scale.words(),
        image_bytes=volume.nbytes,
        resident_bytes=volume.nbytes_resident,
        tile=options.tile or network.fixed_tile,
        halo=options.halo,
        device_voxels=network.device_voxels,
    )
    plan.check_memory()
    return plan


def _planned_anew(job: Job) -> Job:
    """The same job for another engine, which other tiles may suit."""
    shape = job.plan.grid.shape
    plan = _plan(job.volume, shape, job.network, job.decoder, job.options, job.scale)
    return replace(job, plan=plan)


def make_decoder(network: LoadedModel, options: Options) -> Decoder:
    """The decoder a model's card or the user asks for.

    Raises
    ------
    UsageError, InputError
        It does not fit the model, does not have the mode, or not the parameters.
    """
    choice = network.choice
    decoder = decoder_for(
        network.model.card,
        options.decoder,
        options.decoder_parameters,
        # Who asks for a CPU engine wants the GPU left alone, most likely for something else.
        keep_to_cpu=f"as --engine {choice.name} was asked for" if choice.spares_gpu else "",
    )
    if options.mode not in decoder.modes:
        raise UsageError(
            f"the decoder {decoder.name} has no mode {options.mode!r}; "
            f"it has {', '.join(decoder.modes)}"
        )
    return decoder


def predict(job: Job, clock: StageClock) -> Fields:
    """Run the network over a prepared image.

    Raises
    ------
    EngineError
        The engine cannot load the model, or returned values that are not finite.
    """
    if job.image.defects.constant or (
        isinstance(job.intensity, IntensityRange) and job.intensity.is_constant
    ):
        return Fields(job, None, seconds=dict(clock.seconds))
    shape, note = job.plan.grid.shape, clock.progress.note
    with clock.stage("prepare image"):
        image = prepare_image(job.image, shape, job.network.model.card.normalisation, job.intensity)
    with job.network.in_use:
        while True:
            with clock.stage("load"):
                while not job.network.settle(job.plan.grid.tile, note):
                    job = _planned_anew(job)
                session = job.network.session(job.plan.grid.tile, note)
            try:
                with clock.stage("network", job.plan.model_voxels, "voxels"):
                    kept, seconds = network_fields(
                        image, job.plan.grid, session, job.decoder, clock.progress.advance, note
                    )
                break
            except Exception as error:
                del session  # its memory goes to the one that takes its place
                job.network.replace(error, job.plan.grid.tile, note)
                job = _planned_anew(job)
    precision, device = session.precision, session.device
    del session
    job.network.finish()
    return Fields(job, kept, precision, device, seconds, dict(clock.seconds))


def decode(fields: Fields, decoder: Decoder | None = None, mode: Mode | None = None) -> Decoded:
    """Turn fields into cells on the image's grid; the fields stay as they are.

    Parameters
    ----------
    fields : Fields
    decoder : Decoder, optional
        Another one of the same family, with other parameters; the job's by default.
    mode : {"fast", "exact"}, optional
        The job's by default.
    """
    job = fields.job
    if fields.kept is None:
        return Decoded(np.zeros(job.volume.shape, np.int32), Place("CPU", "nothing was decoded"))
    decoder = decoder or job.decoder
    decoded = decoder.decode(fields.kept, mode=mode or job.options.mode)
    if decoded.labels.shape == job.volume.shape:
        return decoded
    return decoder.to_grid(decoded, fields.kept, job.volume.shape)


def measure(
    labels: NDArray[np.int32], volume: Volume, *, anisotropy: float | None = None
) -> CellTable:
    """One row per cell, in µm where the voxel size is known.

    Parameters
    ----------
    labels : ndarray, int32, shape (z, y, x)
    volume : Volume
    anisotropy : float, optional
        z size over x size, used where the voxel size is not known; 1 by default.
    """
    from cellrt.runtime.results.table import measure as measure_cells

    return measure_cells(
        labels, volume.channels, volume.full_voxel_size_um, anisotropy=anisotropy or 1.0
    )


def judge(table: CellTable, decoded: Decoded, job: Job) -> tuple[CellTable, Quality]:
    """Say how far to trust each cell, and what to expect of all of them.

    The model's card knows that for the model's own decoder; of another's cells only the evidence
    is told.
    """
    from cellrt.runtime.results.confidence import Quality
    from cellrt.runtime.results.confidence import judge as judge_cells

    if decoded.evidence is None:
        return table, Quality({})
    card = job.network.model.card
    # Confidence is fitted on stacks, where fields of a slice say something else.
    own = job.decoder.name == card.decoder and not job.volume.is_2d
    return judge_cells(table, decoded.evidence, card.confidence if own else None)


def doubts(quality: Quality, table: CellTable, job: Job) -> list[str]:
    """Warnings of cells of which few may be right, with the likely reason."""
    from cellrt.runtime.results import verdict

    return verdict.doubts(quality, table, job)


def select(
    labels: NDArray[np.int32], table: CellTable, options: Options
) -> tuple[CellTable, dict[str, int]]:
    """Leave out cells that are not wanted, in the labels in place, and say how many."""
    from cellrt.runtime.results import selection

    return selection.select(
        labels,
        table,
        min_confidence=options.min_confidence,
        min_size=options.min_size,
        max_size=options.max_size,
    )


@contextmanager
def compiling(decoder: Decoder, clock: StageClock) -> Iterator[None]:
    """Compile what comes after the network meanwhile; it takes seconds, on the first run only."""
    from cellrt.runtime.results import table

    with (
        announced(clock.progress.note),
        compile_ahead(table.warm_up, apart=[decoder.warm_up]),
    ):
        yield


def _chosen_range(options: Options) -> IntensityRange | None:
    if options.intensity is None:
        return None
    return IntensityRange(*options.intensity)
