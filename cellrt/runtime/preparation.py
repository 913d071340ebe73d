"""A run is planned before anything big is computed: engine, scale, intensities, tiles, memory.

Whatever can be refused is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cellrt.compiled import announced
from cellrt.errors import CellrtError, InputError, UsageError
from cellrt.geometry import Shape
from cellrt.limits import check_process_limits
from cellrt.runtime.cell_size.search import refine_scale
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.decoding.parameters import without_drawing
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.drawn import drawing
from cellrt.runtime.grid.findings import findings
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.runtime.grid.model_image import Scale, look_at, measure_intensity
from cellrt.runtime.grid.scale import UNKNOWN_SPACING, CellScale, known_scale, slice_planes
from cellrt.runtime.image.reading import Source, is_2d
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.image.voxel_size import doubts_about_anisotropy
from cellrt.runtime.job import Job, Options
from cellrt.runtime.model.card_parts import LocalBrightness
from cellrt.runtime.model.file import DEFAULT, DEFAULT_2D, bundled_models
from cellrt.runtime.network.engines.base import check_precision
from cellrt.runtime.network.engines.choice import EngineChoice
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.plan import Plan, check_halo, make_plan
from cellrt.runtime.progress import StageClock

if TYPE_CHECKING:
    from cellrt.runtime.model.card import ModelCard
    from cellrt.runtime.model.file import ModelFile

# Voxels along each axis that are looked at for whether a chosen range shows anything.
_SEEN_PER_AXIS = 64


def default_model(source: Source, **known: Any) -> str:
    """Name of the model for an image where none is asked for; ``known`` as for `read`.

    What is wrong with an image is said when it is read, after what is wrong with the options.
    """
    try:
        single = DEFAULT_2D in bundled_models() and is_2d(source, **known)
    except CellrtError:
        single = False
    return DEFAULT_2D if single else DEFAULT


def load(
    model: ModelFile,
    options: Options,
    *,
    keep: int = 0,
    at_once: int = 1,
    choice: EngineChoice | None = None,
) -> LoadedModel:
    """Choose the engine for a model, unless it is chosen; it loads when the first tile comes.

    ``keep`` and ``at_once`` are those of `LoadedModel`.

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
    check_precision(options.precision)
    if choice is None:
        choice = choose_engine(
            options.engine, model, tile=options.tile, precision=options.precision
        )
    else:
        tile = options.tile or choice.fixed_tile(model, options.precision)
        choice.refuse(model, tile, options.precision)
    return LoadedModel(model, choice, options.precision, keep, at_once)


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
    if options.slices and not card.planar:
        instead = (
            "sees the whole stack from three sides, as --views asks for; leave one of them out"
            if card.views
            else "finds cells in whole stacks; leave it out, or give a --model of single slices"
        )
        raise UsageError(f"--slices cannot be asked for: model {card.name!r} {instead}")
    if options.min_confidence is not None and (
        card.confidence is None or decoder.name != card.decoder
    ):
        raise UsageError(
            f"--min-confidence cannot be asked for: model {card.name!r} with the decoder "
            f"{decoder.name} says nothing about the confidence of cells; leave it out, or give a "
            "--model that does, as nuclei and membranes do"
        )
    return decoder


def prepare(
    volume: Volume,
    network: LoadedModel,
    options: Options,
    clock: StageClock,
    guess: CellScale | None = None,
) -> Job:
    """Decide scale, intensities and tiles, and check them; nothing big is computed yet.

    Parameters
    ----------
    volume : Volume
    network : LoadedModel
    options : Options
    clock : StageClock
    guess : CellScale, optional
        What other images of the run say of the cells' size: taken as it is where it is
        `to_confirm`, else where the search begins. A diameter given by the user goes before it.

    Raises
    ------
    CellrtError
        As :func:`cellrt.runtime.segment.segment`.
    """
    with announced(clock.progress.note):
        return _prepare(volume, network, options, clock, guess)


def _prepare(
    volume: Volume,
    network: LoadedModel,
    options: Options,
    clock: StageClock,
    guess: CellScale | None,
) -> Job:
    card = network.model.card
    decoder = check(network, options)
    if volume.is_2d and card.views:
        raise InputError(
            f"the image has one slice and model {card.name!r} looks at stacks from three sides; "
            "give a z-stack, or the --model of single slices by itself, without --views"
        )
    if volume.is_2d and not card.two_dimensional:
        raise InputError(
            f"the image has one slice and model {card.name!r} needs a stack: it was not trained "
            "on single slices; give a z-stack, or another --model"
        )
    if card.planar and not volume.is_2d and not options.slices:
        sides = "--views for cells seen from three sides, " if card.predicts_flows else ""
        raise InputError(
            f"the image has {volume.shape[0]} slices and model {card.name!r} looks at single "
            f"ones: give {sides}--slices for those of each slice, with --stitch 0.25 to join what "
            "overlaps, or another --model for stacks"
        )
    if volume.is_2d and not card.planar and options.min_confidence is not None:
        raise UsageError(
            f"--min-confidence cannot be asked for of one slice: model {card.name!r} knows it in "
            "stacks; leave it out, or give a --model of single slices"
        )
    chosen = _chosen_range(options)
    # The record has what was asked for as it was read, also where texts were given.
    asked = {name: getattr(decoder.parameters, name) for name in options.decoder_parameters}
    options = replace(options, decoder_parameters=asked)
    for text in options.against(volume.shape):
        clock.progress.note(text)
    warnings = list(volume.warnings)
    with clock.stage("look"):
        image = look_at(volume.image, card.normalisation)
        drawn = _drawn(volume)
        warnings += drawn
    with network.in_use, clock.stage("cell size"):
        scale = find_scale(
            volume, image, network, decoder, options, warnings, clock.progress.note, guess
        )
    if len(volume.channels) > 1:
        clock.progress.note(f"segmented is {volume.channel_source.text}")
    for text in (
        f"cell diameter {scale.diameter_pixels:.3g} pixels: {scale.diameter_origin}",
        f"spacing z:y:x {':'.join(f'{s:.3g}' for s in scale.spacing)}: {scale.spacing_origin}",
    ):
        clock.progress.note(text)
    warnings += scale.doubts((1, *image.shape[1:]) if card.planar else image.shape, card)
    model_shape = scale.model_shape(image.shape, card)
    if volume.is_2d:
        model_shape = (slice_planes(card), *model_shape[1:])
    elif card.planar:
        model_shape = (image.shape[0], *model_shape[1:])
    plan = _plan(volume, image.shape, model_shape, network, decoder, options, scale)
    with clock.stage("intensity"):
        intensity = measure_intensity(image, model_shape, card.normalisation, chosen)
        local = isinstance(card.normalisation, LocalBrightness)
        rule = "chosen by the user" if chosen else "local brightness" if local else "percentiles"
        found = findings(image, model_shape, intensity, rule)
        warnings += _unseen(image, chosen)
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
        # Of what is no recording, grey values say nothing.
        (*warnings, *(() if drawn else found.warnings())),
    )


def find_scale(
    volume: Volume,
    image: MendedImage,
    network: LoadedModel,
    decoder: Decoder,
    options: Options,
    warnings: list[str],
    note: Callable[[str], None],
    guess: CellScale | None = None,
    *,
    in_steps: bool = True,
) -> CellScale:
    """The scale that user, file, other images of the run or the cells say; see `prepare`.

    Parameters
    ----------
    volume, network, decoder, options, guess
        As for `prepare`.
    image : MendedImage
        The volume's, as the network sees it.
    warnings : list of str
        Receives what the user should know.
    note : callable
        Told what takes long.
    in_steps : bool
        Whether what is searched for from a guess becomes a step, as images of a run that have a
        size of their own share networks then.
    """
    known, spacing, spacing_origin = known_scale(
        volume, network.model.card, diameter=options.diameter, anisotropy=options.anisotropy
    )
    if spacing_origin == UNKNOWN_SPACING and not network.model.card.planar:
        warnings.append(f"the distance between slices is {UNKNOWN_SPACING}")
    if options.anisotropy is not None and not volume.is_2d:
        warnings += doubts_about_anisotropy(options.anisotropy, volume.voxel_size_um)
    # How cells are drawn does not change how large they are.
    settings = without_drawing(options.decoder_parameters, type(decoder.parameters))
    if settings != options.decoder_parameters:
        decoder = make_decoder(network, replace(options, decoder_parameters=settings))
    searched = partial(
        refine_scale,
        image,
        spacing=spacing,
        spacing_origin=spacing_origin,
        network=network,
        decoder=decoder,
        warnings=warnings,
        note=note,
        intensity=_chosen_scale(image, network.model.card, options),
    )
    if guess is None or (known is not None and known.certain):
        return searched(start=known)
    scale = replace(guess, spacing=spacing, spacing_origin=spacing_origin)
    if not guess.to_confirm:
        scale = searched(start=scale)
        scale = scale.in_steps() if in_steps else scale
    if known is None:
        warnings.append(
            f"no voxel size is known: the cell diameter is taken as {scale.diameter_pixels:.3g} "
            f"pixels, {scale.diameter_origin}; give --diameter or --voxel-size to be sure"
        )
    return scale


def _plan(
    volume: Volume,
    shape: Shape,
    model_shape: Shape,
    network: LoadedModel,
    decoder: Decoder,
    options: Options,
    scale: CellScale,
) -> Plan:
    """Lay out tiles for the engine there is, and check the memory that they take."""
    plan = make_plan(
        shape,
        model_shape,
        network.model.card,
        decoder,
        whole=volume.shape,
        scale=scale.words(),
        image_bytes=volume.nbytes,
        resident_bytes=volume.nbytes_resident,
        tile=options.tile or network.fixed_tile,
        halo=options.halo,
        device_voxels=network.device_voxels,
        tile_bytes=network.tile_bytes,
    )
    plan.check_memory()
    return plan


def planned_anew(job: Job) -> Job:
    """The same job for another engine, which other tiles may suit."""
    shape = job.plan.grid.shape
    seen = job.image.shape
    plan = _plan(job.volume, seen, shape, job.network, job.decoder, job.options, job.scale)
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


def _chosen_scale(image: MendedImage, card: ModelCard, options: Options) -> Scale | None:
    """What the user chose to become 0 and 1, the same on every grid."""
    chosen = _chosen_range(options)
    return measure_intensity(image, image.shape, card.normalisation, chosen) if chosen else None


def _chosen_range(options: Options) -> IntensityRange | None:
    if options.intensity is None:
        return None
    return IntensityRange(*options.intensity)


def _drawn(volume: Volume) -> list[str]:
    """The warning that an image is what others made of a recording, where it looks so."""
    kind = drawing(volume.image)
    if kind is None:
        return []
    return [
        f"the image looks like {kind}, in which areas of one value end sharply, and not like a "
        "recording: give the one that it was made from"
    ]


def _unseen(image: MendedImage, chosen: IntensityRange | None) -> list[str]:
    """The warning that a chosen range shows the network one grey value only, where it does."""
    if chosen is None:
        return []
    sample = image.sample(_SEEN_PER_AXIS) + image.defects.base
    low, high = sample.min(initial=np.inf), sample.max(initial=-np.inf)
    if not sample.size or (low < chosen.high and high > chosen.low):
        return []
    return [
        f"the image has grey values from about {low:g} to {high:g}, all beside --intensity "
        f"{chosen.low:g} {chosen.high:g}: give a range within them, or leave it out"
    ]
