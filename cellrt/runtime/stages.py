"""The stages of a run that is planned, one function and one result each.

    job = prepare(volume, network, options, clock)    # cellrt.runtime.preparation
    fields = predict(job, clock)
    decoded = decode(fields)               # as often as one likes, with other decoders
    table = measure(decoded.labels, volume)

:class:`cellrt.runtime.segment.Segmenter` drives them for those who want cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compile_ahead import compile_ahead
from cellrt.compiled import announced
from cellrt.geometry import Box
from cellrt.runtime.decoding.base import Decoded, Decoder, Mode, Place, decode_whole
from cellrt.runtime.decoding.outside import in_whole, without_fill
from cellrt.runtime.decoding.slices import decode_slices
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.job import Job, Options
from cellrt.runtime.machine.transfer import host_array
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.preparation import planned_anew
from cellrt.runtime.progress import StageClock

if TYPE_CHECKING:
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
                    job = planned_anew(job)
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
                job = planned_anew(job)
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
    decoder = decoder or job.decoder
    if fields.kept is None:
        # No cells, but the table shall have the columns that it has of other images.
        outputs = job.network.model.card.outputs[0].channels
        none = decode_whole(np.zeros((len(outputs), 1, 1, 1), np.float32), decoder)
        place = Place("CPU", "nothing was decoded")
        return Decoded(np.zeros(job.volume.shape, np.int32), place, none.evidence)
    if job.options.slices:
        decoded = decode_slices(
            decoder,
            fields.kept,
            job.image.shape,
            mode=mode or job.options.mode,
            stitch=job.options.stitch,
        )
    else:
        decoded = decoder.decode(fields.kept, mode=mode or job.options.mode)
        if decoded.labels.shape != job.image.shape:
            decoded = decoder.to_grid(decoded, fields.kept, job.image.shape)
    return in_whole(without_fill(decoded, job.image), job.image)


def measure(
    labels: NDArray[np.int32],
    volume: Volume,
    *,
    anisotropy: float | None = None,
    slices: bool = False,
    box: Box | None = None,
) -> CellTable:
    """One row per cell, in µm where the voxel size is known.

    Parameters
    ----------
    labels : ndarray, int32, shape (z, y, x)
    volume : Volume
    anisotropy : float, optional
        z size over x size, used where the voxel size is not known; 1 by default.
    slices : bool
        Whether every cell is one of a single slice, with an area and no volume.
    box : (slice, slice, slice), optional
        Where the image ends, if it does before the volume.
    """
    if slices:
        from cellrt.runtime.results.table import measure_slices

        return measure_slices(labels, volume.channels, volume.pixel_size_um, box)
    from cellrt.runtime.results.table import measure as measure_cells

    return measure_cells(
        labels,
        volume.channels,
        volume.full_voxel_size_um,
        anisotropy=anisotropy or 1.0,
        box=box,
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
    x_size = (job.volume.full_voxel_size_um or (1.0, 1.0, 1.0))[2] if table.unit == "um" else 1.0
    areas = {
        f"{name}_{table.unit}2": values[table["id"]] * x_size**2
        for name, values in decoded.evidence.areas.items()
    }
    table = table.with_columns(areas)
    card = job.network.model.card
    # That of a network for stacks is fitted on stacks, where fields of a slice say something else.
    own = job.decoder.name == card.decoder and (card.planar or not job.volume.is_2d)
    return judge_cells(table, decoded.evidence, card.confidence if own else None)


def doubts(quality: Quality, table: CellTable, job: Job) -> list[str]:
    """Warnings of cells of which few may be right, with the likely reason."""
    from cellrt.runtime.results import verdict

    return verdict.doubts(quality, table, job)


def nothing_found(job: Job) -> str:
    """The warning that there are no cells, with what may be wrong."""
    from cellrt.runtime.results import verdict

    return verdict.nothing_found(job)


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
