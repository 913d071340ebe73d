"""The stages of a run: planned first, then computed."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from cellrt.errors import InputError, UsageError
from cellrt.runtime.cell_size_search import refine_scale
from cellrt.runtime.decoding.base import Decoded, Place
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.grid.scale import known_scale
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.job import Job, Options
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import PRECISIONS
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.plan import make_plan
from cellrt.runtime.progress import StageClock
from cellrt.runtime.results.record import run_record
from cellrt.runtime.results.segmentation import Segmentation


def prepare(volume: Volume, model: ModelFile, options: Options, clock: StageClock) -> Job:
    """Decide engine, scale and tiles, and check them; nothing big is computed yet.

    Raises
    ------
    CellrtError
        As :func:`cellrt.runtime.segment.segment`.
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
        options.decoder_parameters,
        keep_to_cpu=f"as --engine {choice.name} was asked for" if choice.spares_gpu else "",
    )
    # The record has what was asked for as it was read, also where texts were given.
    asked = {name: getattr(decoder.parameters, name) for name in options.decoder_parameters}
    options = replace(options, decoder_parameters=asked)
    if options.mode not in decoder.modes:
        raise UsageError(
            f"the decoder {decoder.name} has no mode {options.mode!r}; "
            f"it has {', '.join(decoder.modes)}"
        )
    warnings = list(volume.warnings)
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
        image_bytes=volume.nbytes,
        resident_bytes=volume.nbytes_resident,
        tile=options.tile or choice.fixed_tile(model),
        halo=options.halo,
    )
    plan.check_memory()
    return Job(volume, model, options, choice, decoder, scale, plan, clock, warnings)


def run(job: Job) -> Segmentation:
    """Compute a planned job; see :func:`cellrt.runtime.segment.segment` for results and errors."""
    clock, volume, card = job.clock, job.volume, job.model.card
    with clock.stage("prepare image"):
        image = prepare_image(volume.image, job.plan.grid.shape, card.normalisation)
    network_seconds, precision, device = 0.0, "", ""
    place = Place("CPU", "nothing was decoded")
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
            decoded = _decode(job, kept)
        del kept
        labels, place = decoded.labels, decoded.place
        if place.fell_back:
            job.warnings.append(place.reason)
    with clock.stage("measure"):
        from cellrt.runtime.results.table import measure

        table = measure(
            labels,
            volume.channels,
            volume.full_voxel_size_um,
            anisotropy=job.scale.spacing[0],
        )
    if len(table) == 0:
        job.warnings.append("no cells were found")
    for text in job.warnings:
        clock.progress.note(text, warning=True)
    record = run_record(
        job,
        cells=len(table),
        place=place,
        network_seconds=network_seconds,
        precision=precision,
        device=device,
    )
    flat = volume.is_2d and "Z" not in volume.file_axes
    return Segmentation(labels[0] if flat else labels, table, record, volume)


def _warm_up(job: Job) -> None:
    """Compile what comes after the network."""
    from cellrt.runtime.results import table

    job.decoder.warm_up()
    table.warm_up()


def _decode(job: Job, kept: Any) -> Decoded:
    """Cells on the input's grid."""
    decoded = job.decoder.decode(kept, mode=job.options.mode)
    if decoded.labels.shape == job.volume.shape:
        return decoded
    return job.decoder.to_grid(decoded, kept, job.volume.shape)
