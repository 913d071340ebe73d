"""What `cellrt segment` prints: plan, engine, parameters of a decoder, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellrt.wording import counted

if TYPE_CHECKING:
    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.runtime.job import Job
    from cellrt.runtime.model.file import ModelFile
    from cellrt.runtime.network.engines.choice import EngineChoice
    from cellrt.runtime.progress import Progress
    from cellrt.runtime.results.segmentation import Segmentation


def print_parameters(model: ModelFile, name: str | None) -> None:
    """Print what ``--param`` can set, and to what it is set without it."""
    from cellrt.runtime.decoding.parameters import parameter_lines
    from cellrt.runtime.decoding.registry import decoder_for

    decoder = decoder_for(model.card, name)
    print(f"parameters of the decoder {decoder.name} for {model.card.name}:")
    for line in parameter_lines(decoder.parameters):
        print(f"  {line}")


def print_result(
    result: Segmentation, paths: dict[str, Path], events: JsonEvents | Terminal, *, quiet: bool
) -> None:
    """Say what came out and where it is."""
    from cellrt.cli.reporting import JsonEvents
    from cellrt.errors import one_line
    from cellrt.runtime.results.verdict import likely_right

    if isinstance(events, JsonEvents):
        files = {name: str(path) for name, path in paths.items()}
        events.emit("result", cells=len(result.table), files=files, record=result.record)
        return
    if not quiet:
        seconds = sum(
            v for k, v in result.record["seconds"].items() if not k.startswith("network_")
        )
        engine = result.record["engine"]
        ran = f"with {engine['name']} ({engine['precision']})" if engine["precision"] else ""
        print(f"{counted(len(result.table), 'cell')} in {seconds:.1f} s {ran}".rstrip())
        for name, count in result.record["left_out"].items():
            if count:
                print(f"{counted(count, 'cell')} left out by --{name.replace('_', '-')}")
        if line := likely_right(result):
            print(line)
        for path in paths.values():
            print(f"  {one_line(str(path))}")


def tell_engine(choice: EngineChoice, progress: Progress) -> None:
    """Say which engine runs, and why each better one does not."""
    progress.note(f"engine {choice.reason}")
    for name, why in choice.skipped:
        progress.note(f"engine {name} skipped: {why}")


def print_plan(job: Job, labels: Path, events: JsonEvents | Terminal) -> None:
    """Print what would be computed."""
    from cellrt.cli.reporting import JsonEvents
    from cellrt.errors import one_line
    from cellrt.runtime.plan import estimate_seconds

    seconds, precision = estimate_seconds(job.plan, job.network)
    grid, model = job.plan.grid, job.network.file
    plan = {
        "input": f"{job.volume.shape} voxels (z, y, x), {job.volume.dtype}",
        "axes": f"{job.volume.file_axes}, {job.volume.axes_source}",
        "channel": f"{job.volume.channel_names[job.volume.segmented_channel]}, "
        f"{job.volume.channel_source}",
        "time point": f"{job.volume.time} of {job.volume.times}",
        "voxel size": f"{job.volume.voxel_size_um or 'unknown'} µm, {job.volume.voxel_size_source}",
        "cell diameter": f"{job.scale.diameter_pixels:.3g} pixels, {job.scale.diameter_origin}",
        "model": f"{model.card.name} ({model.path.name}), sha256 {model.sha256[:12]}",
        "intensity": job.findings.line(),
        "decoder": job.decoder.name,
        "model grid": f"{grid.shape} voxels{_box(job)}",
        "tiles": f"{len(grid)} of {grid.tile}, {job.plan.overhead:.2f} voxels computed per voxel",
        "engine": job.network.choice.reason,
        "precision": precision,
        "memory": f"about {job.plan.memory_bytes / 1e9:.1f} GB at the peak",
        "time": f"about {seconds:.0f} s",
        "results": f"{one_line(str(labels))} and beside it",
    }
    if job.view_weights is not None:
        shown = (f"{name} {weight:.3g}" for name, weight in job.view_weights.items())
        plan["views"] = f"planes along all three axes, with weights {', '.join(shown)}"
    if isinstance(events, JsonEvents):
        events.emit("plan", seconds=seconds, memory_bytes=job.plan.memory_bytes, **plan)
        return
    events.close()
    for name, text in plan.items():
        print(f"{name:14} {text}")
    for text in (*job.warnings, *job.network.choice.warnings):
        print(f"{'warning':14} {text}")


def _box(job: Job) -> str:
    """Which part of the input is an image, where that is not all of it."""
    if job.image.shape == job.volume.shape:
        return ""
    z, y, x = (f"{part.start} to {part.stop}" for part in job.image.box)
    return f", of the box that is an image: z {z}, y {y}, x {x}"
