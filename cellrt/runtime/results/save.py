"""The files of one run, four and those asked for beside them: held for it, and written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError, one_line
from cellrt.files import atomic_outputs, foresee_outputs
from cellrt.runtime.image.formats import locate
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.progress import Silent, StageClock
from cellrt.runtime.results.label_tiff import write_labels, write_layers
from cellrt.runtime.results.names import EXTRAS, is_folder, named_labels, result_paths
from cellrt.runtime.results.table import CellTable


def check_extras(extras: Collection[str], decoder: str) -> None:
    """Refuse what is asked for and cannot be written, before anything is computed.

    Parameters
    ----------
    extras : collection of str
        Of the keys of `EXTRAS`.
    decoder : str
        The name of the one that finds the cells.

    Raises
    ------
    UsageError
        No package to write ROIs with, or a decoder that knows nothing of covered cells.
    """
    if "rois" in extras:
        from cellrt.runtime.results.rois import require_roifile

        require_roifile()
    if "overlaps" in extras and decoder != "embedding":
        raise UsageError(
            f"--overlaps cannot be asked for: the decoder {decoder} gives a cell no parts on both "
            "sides of one that crosses it, as embedding does; leave it out"
        )


class Result(Protocol):
    """What is written: a :class:`~cellrt.runtime.results.segmentation.Segmentation`."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """Labels, shape (z, y, x) or (y, x)."""
        ...

    @property
    def table(self) -> CellTable:
        """One row per cell."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """What ran and how."""
        ...

    @property
    def volume(self) -> Volume:
        """The input."""
        ...


def save(
    result: Result,
    labels: str | os.PathLike[str] | None = None,
    *,
    preview: bool = True,
    overwrite: bool = False,
    extras: Collection[str] = (),
) -> dict[str, Path]:
    """Write all results; see :meth:`cellrt.runtime.results.segmentation.Segmentation.save`."""
    check_extras(extras, result.record["decoder"]["name"])
    with outputs_of(result.volume, labels, overwrite=overwrite, extras=extras) as outputs:
        return write_results(result, outputs, StageClock(Silent()), preview=preview)


@dataclass(frozen=True)
class Outputs:
    """Where results go: final paths, and temporary ones to write to."""

    final: dict[str, Path]
    temporary: dict[str, Path]


class _Needs(TypedDict):
    needed_bytes: int
    inputs: list[Path]


@contextmanager
def outputs_of(
    volume: Volume,
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
    extras: Collection[str] = (),
) -> Iterator[Outputs]:
    """Hold the results of an image for one run, which writes them before the body ends.

    Parameters as for :func:`result_paths`; errors also as :func:`cellrt.files.atomic_outputs`.
    """
    final = result_paths(volume, output, extras)
    with atomic_outputs(final, overwrite=overwrite, **_needs(volume)) as temporary:
        yield Outputs(final, temporary)


def foresee_outputs_of(
    volume: Volume,
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
    extras: Collection[str] = (),
) -> dict[str, Path]:
    """Return what `outputs_of` would write, or refuse it as that would, and touch nothing."""
    final = result_paths(volume, output, extras)
    foresee_outputs(final, overwrite=overwrite, **_needs(volume))
    return final


def foresee_place(
    address: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
) -> None:
    """Refuse an image that is not there, or a place for results, as far as names alone tell.

    Parameters
    ----------
    address : str or path
        Of the image, as for `read`.
    output, overwrite
        As for :func:`result_paths` and `outputs_of`.

    Raises
    ------
    InputError, UsageError, ResourceError
        As those.
    """
    path, _, _ = locate(address)
    text = None if output is None else os.fspath(output)
    if text is None or is_folder(text):
        # A name that nothing has, as the result's own follows from what is in the file.
        labels = (path.parent if text is None else Path(text)) / ".cellrt-foreseen.tif"
    else:
        labels = named_labels(text)
    foresee_outputs({"labels": labels}, overwrite=overwrite, inputs=[path])


def _needs(volume: Volume) -> _Needs:
    """Room that results take, and what they may not replace."""
    return {
        # Labels hardly ever compress to more than this; a picture and a table take the rest.
        "needed_bytes": math.prod(volume.shape) // 2 + 2_000_000,
        "inputs": [] if volume.path is None else [volume.path],
    }


def write_results(
    result: Result, outputs: Outputs, clock: StageClock, *, preview: bool = True
) -> dict[str, Path]:
    """Write all results, with or without the preview; return the final paths.

    Parameters
    ----------
    result : Segmentation
        Its record is given the seconds that writing takes.
    outputs : Outputs
        As from :func:`outputs_of`.
    clock : StageClock
    preview : bool
    """
    paths = outputs.temporary
    volume, record = result.volume, result.record
    labels = result.labels.reshape(volume.shape)
    with clock.stage("write"):
        write_labels(paths["labels"], labels, volume)
        result.table.write_csv(paths["cells"])
        _write_extras(paths, labels, volume)
    for text in _older_extras(outputs.final):
        clock.warn(text)
        record["warnings"].append(text)
    if preview:
        # Drawing takes modules that a run without a picture never loads.
        from cellrt.runtime.results.preview.page import write_preview

        with clock.stage("preview"):
            write_preview(
                paths["preview"],
                volume.image,
                labels,
                volume.full_voxel_size_um,
                anisotropy=record["scale"]["spacing_zyx"][0],
                title=_title(volume, outputs.final["labels"].name),
                cells=len(result.table),
                note=f"intensity {record['intensity']['line']}",
            )
    for name in ("write", "preview"):
        record["seconds"][name] = round(clock.seconds.get(name, 0.0), 4)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # Names are UTF-8 where they can be, whatever the locale took them for. A byte that is none is
    # written as \\udcXX, from which it can be got back.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    paths["run"].write_text(text, encoding="utf-8", errors="backslashreplace")
    return {name: path for name, path in outputs.final.items() if preview or name != "preview"}


def _write_extras(paths: dict[str, Path], labels: NDArray[np.int32], volume: Volume) -> None:
    """Write what was asked for beside the four files; its modules are not loaded without."""
    if "overlaps" not in paths and "rois" not in paths:
        return
    from cellrt.runtime.results.masks import layers_of, masks_of, whole_masks

    masks = [(whole_masks if "overlaps" in paths else masks_of)(plane) for plane in labels]
    if "overlaps" in paths:
        write_layers(paths["overlaps"], layers_of(masks[0], volume.shape[1:]), volume)
    if "rois" in paths:
        from cellrt.runtime.results.rois import write_rois

        write_rois(paths["rois"], masks)


def _older_extras(final: dict[str, Path]) -> Iterator[str]:
    """Say what lies beside the results, is called as if it were one of them, and shows others."""
    stem = final["run"].name.removesuffix(".run.json")
    for name, ending in EXTRAS.items():
        other = final["run"].with_name(stem + ending)
        if name not in final and os.path.exists(other):  # a name may be too long
            yield (
                f"{one_line(other.name)} is of an earlier run and shows its cells, not these; "
                f"remove it, or write it anew with --{name}"
            )


def _title(volume: Volume, otherwise: str) -> str:
    """What was segmented, in words."""
    parts = [otherwise if volume.path is None else volume.path.name]
    if volume.path is not None and volume.inside:
        parts[0] += f":{volume.inside}"
    if volume.times > 1:
        parts.append(f"time {volume.time} of {volume.times}")
    if len(volume.channels) > 1:
        number, name = volume.segmented_channel + 1, volume.channel_names[volume.segmented_channel]
        standard = f"channel {number}"
        parts.append(standard if name == standard else f"{standard} ({name})")
    return one_line(", ".join(parts))
