"""A prepared job, computed: from the network to the table of cells and the record."""

from __future__ import annotations

from cellrt.compiled import complaint
from cellrt.runtime import stages
from cellrt.runtime.cell_size.common import with_own_size
from cellrt.runtime.job import Job
from cellrt.runtime.progress import StageClock
from cellrt.runtime.results.record import run_record
from cellrt.runtime.results.segmentation import Segmentation


def run(job: Job, clock: StageClock) -> Segmentation:
    """Compute a prepared job, from the network to the table of cells.

    What is doubtful before the network runs is said before it does.
    """
    for text in (*job.warnings, *job.network.choice.warnings):
        clock.warn(text)
    return finish(begin(job, clock), clock)


def begin(job: Job, clock: StageClock) -> stages.Fields:
    """Run the network of a prepared job, and load meanwhile what comes after it."""
    with stages.compiling(job.decoder, clock):
        return stages.predict(job, clock)


def finish(fields: stages.Fields, clock: StageClock) -> Segmentation:
    """From the network's fields to the table and the record.

    Where the cells do not have the size that the images of the run have in common, the network runs
    again at their own.
    """
    job, volume = fields.job, fields.job.volume
    found: list[str] = [*job.warnings, *job.network.choice.warnings]
    if fields.kept is None:
        found.append(_nothing_to_see(job))
    with clock.stage("cells"):
        decoded = stages.decode(fields)
    if job.scale.to_confirm and fields.kept is not None:
        anew = with_own_size(job, decoded.labels, clock)
        if anew is not None:
            return run(anew, clock)
    if decoded.place.fell_back:
        found.append(decoded.place.reason)
    found += decoded.warnings
    with clock.stage("measure"):
        table = stages.measure(
            decoded.labels,
            volume,
            anisotropy=job.scale.spacing[0],
            slices=job.options.slices and job.options.stitch is None,
            box=job.image.box,
        )
    with clock.stage("judge"):
        table, quality = stages.judge(table, decoded, job)
        found += stages.doubts(quality, table, job)
        table, left_out = stages.select(decoded.labels, table, job.options)
    if len(table) == 0 and any(left_out.values()):
        names = " and ".join(f"--{name.replace('_', '-')}" for name, n in left_out.items() if n)
        found.append(f"all cells that were found were left out by {names}")
    elif len(table) == 0 and fields.kept is not None:
        found.append(stages.nothing_found(job))
    if text := complaint():
        found.append(text)
    found = list(dict.fromkeys(found))  # each once, whoever found it
    for text in found:
        clock.warn(text)
    record = run_record(
        job,
        cells=len(table),
        warnings=found,
        seconds=clock.seconds,
        network_seconds=fields.network_seconds,
        precision=fields.precision,
        device=fields.device,
        place=decoded.place,
        quality=quality,
        left_out=left_out,
    )
    flat = volume.is_2d and "Z" not in volume.file_axes
    labels = decoded.labels[0] if flat else decoded.labels
    return Segmentation(labels, table, record, volume)


def _nothing_to_see(job: Job) -> str:
    """Why the network did not run, after a look at every voxel: a sample has told so far."""
    planes = [(plane.min(), plane.max()) for plane in job.volume.image]
    low, high = min(low for low, _ in planes), max(high for _, high in planes)
    if low == high:
        return f"the image is constant (every voxel is {low:g}): there is nothing to segment"
    return (
        f"the image has next to no contrast (grey values are {low:.9g} to {high:.9g}, nearly all "
        f"about {job.findings.low:.9g}): nothing was segmented; --intensity sets what to look for"
    )
