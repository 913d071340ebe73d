"""Read TIFF, BigTIFF, ImageJ hyperstacks and OME-TIFF."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.runtime.image.choices import taken_by_number
from cellrt.runtime.image.colours import COLOURS
from cellrt.runtime.image.formats.damage import damaged, raised_in
from cellrt.runtime.image.formats.tiff_ome import (
    channel_names,
    file_with_description,
    pixels_of,
    refuse_missing_files,
)
from cellrt.runtime.image.formats.tiff_pages import (
    as_far_as_written,
    refuse_missing_bytes,
    refuse_mixed_pages,
)
from cellrt.runtime.image.formats.tiff_through_pillow import read_with_pillow
from cellrt.runtime.image.formats.tiff_voxel_size import (
    LABELS_SOFTWARE,
    software_of,
    stated_size,
)
from cellrt.runtime.image.source import Unread
from cellrt.runtime.image.stored import Stored

# Size, kind and place of the voxels, and the description that holds the axes.
_ESSENTIAL_TAGS = {*range(256, 260), 262, 270, 273, *range(277, 280), 284, 317, *range(322, 326)}
_ESSENTIAL_TAGS |= {330, 339}
_TAG = re.compile(r"TiffTag (\d+)")
_DAMAGE = re.compile(
    r"TiffPages|corrupt|[Mm]issing|out of range|invalid TiffData|failed to re(ad|shape)"
    r"|series raised"
)
# Told apart better by looking at the files and pages that there are.
_NO_DAMAGE = re.compile(
    r"OME series failed to read|ImageJ series metadata invalid"
    r"|failed to read (summary|index map|display|comments)"
)
# tifffile logs to one place for all threads, and does not say of which file.
_one_thread = threading.RLock()
# A second image this much smaller than the first is a thumbnail or a label of the slide.
_THUMBNAIL_FRACTION = 0.05
# Of the steps of a table of colours for brightness, so many go up: rainbows turn once or twice.
_RISING = 0.7


def read(path: Path, inside: str) -> Stored:
    """Read an image of a TIFF file, memory-mapped where the file allows it.

    Parameters
    ----------
    path : Path
    inside : str
        Which of several images, counted from 1, or its name; empty for the only one.

    Raises
    ------
    InputError
        A truncated or damaged file, several images and none chosen, pages of different kinds in
        one image, a compression whose codec is not installed.
    """
    with _open_tiff(path) as tif:
        description = file_with_description(path, tif)
        if description is None:
            return _read_open(path, tif, inside)
    if description.suffix.lower() in (".ome", ".xml"):
        with _open_tiff(path, omexml=description.read_text(encoding="utf-8")) as tif:
            stored = _read_open(path, tif, inside)
    else:
        with _open_tiff(description) as tif:
            stored = _read_open(description, tif, inside)
    warning = f"{path.name} is one file of an OME set: the whole set was read"
    return replace(stored, warnings=(warning, *stored.warnings))


def _read_open(path: Path, tif: tifffile.TiffFile, inside: str) -> Stored:
    warnings: tuple[str, ...] = ()
    cut_short = None if inside else as_far_as_written(path.name, tif)
    if cut_short is None:
        series = _choose_series(tif, path, inside)
        if inside:
            every = list(tif.series)
            at = next(i for i, one in enumerate(every) if one is series)
            warnings = taken_by_number("series", inside, at, [one.name for one in every])
    else:
        series, warnings = cut_short[0], cut_short[1:]
    # Where all axes have one voxel the file's reader may name one twice.
    axes = series.axes
    if len(set(axes)) < len(axes):
        axes = ("Q" * len(axes))[2:] + "YX"
    pixels = pixels_of(tif, series)
    if pixels is not None:
        refuse_missing_files(path, pixels)
    refuse_missing_bytes(path.name, series)
    if inside or cut_short is not None:  # else it was looked at before it was chosen
        refuse_mixed_pages(path.name, tif, series)
    return Stored(
        _array_of(path, tif, series),
        axes=axes,
        axes_text=_axes_text(series),
        size=stated_size(tif, series, pixels),
        channel_names=_colours(series) or (None if pixels is None else channel_names(pixels)),
        warnings=(*warnings, *_unusual_values(path.name, series)),
        holds_labels=software_of(series) == LABELS_SOFTWARE,
    )


def _unusual_values(name: str, series: tifffile.TiffPageSeries) -> tuple[str, ...]:
    """Warn of values that may not get larger with the light.

    They are taken as they are stored all the same: programs save an image that they show inverted,
    or in colours, with the values that it has.
    """
    page = series.keyframe
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return (
            f"{name} says that its smallest value is white; values are taken as they are stored: "
            "where cells are dark in the preview, invert the image",
        )
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        steps = np.diff(np.asarray(page.colormap, np.float64).sum(axis=0))
        if np.count_nonzero(steps > 0) < _RISING * np.count_nonzero(steps):
            return (
                f"{name} has a table of colours that do not get brighter with their numbers, which "
                "are taken as brightness; if it is a picture in few colours, save it in grey",
            )
    return ()


@contextmanager
def _open_tiff(path: Path, omexml: str | None = None) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; whatever tifffile finds wrong inside is one error."""
    with _damage_of(path), tifffile.TiffFile(path, omexml=omexml) as tif:
        yield tif


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Turn what tifffile logs and raises of a damaged file into one error, one thread at a time."""
    with _one_thread:
        complaints = _Complaints()
        logger = logging.getLogger("tifffile")
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(complaints)
        try:
            with _error_of(path, complaints):
                yield
        finally:
            logger.removeHandler(complaints)
            logger.propagate = propagate


@contextmanager
def _error_of(path: Path, complaints: _Complaints) -> Iterator[None]:
    try:
        yield
        if complaints.damage:
            raise damaged(path.name, complaints.damage)
    except InputError as error:
        # A damaged file may look like one with several images.
        if complaints.damage:
            raise damaged(path.name, complaints.damage) from error
        raise
    except MemoryError:
        raise
    except Exception as error:
        # Damage makes these raise anything; what they did not raise is a mistake of ours.
        if not raised_in(error, "tifffile", "PIL"):
            raise
        raise damaged(path.name, str(error)) from error


class _Complaints(logging.Handler):
    """Keeps what tifffile logs instead of raising: it reads past damage with zeros in its place.

    It also logs what does no harm, such as odd private tags and file names, which is let pass, and
    so is what it says in a thread that was there before: others may use it for files of their own.
    It starts threads to decode.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.damage = ""
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.thread in self._others or _NO_DAMAGE.search(message):
            return
        tag = _TAG.search(message)
        if int(tag.group(1)) in _ESSENTIAL_TAGS if tag else _DAMAGE.search(message):
            self.damage = self.damage or message


def _choose_series(tif: tifffile.TiffFile, path: Path, wanted: str) -> tifffile.TiffPageSeries:
    series = list(tif.series)
    if not series:
        raise InputError(f"{path.name} holds no image")
    listed = ", ".join(
        f"{i} = {'x'.join(map(str, s.shape))}" for i, s in enumerate(series[:6], start=1)
    )
    if wanted:
        # As for channels, a number that counts an image is its number, so each can be reached.
        if wanted.isdecimal() and 1 <= int(wanted) <= len(series):
            return series[int(wanted) - 1]
        named = [s for s in series if s.name == wanted]
        if len(named) == 1:
            return named[0]
        raise InputError(
            f"{path.name} has no image {wanted!r}; it holds {len(series)}, counted from 1: {listed}"
        )
    largest = max(series, key=lambda s: s.size)
    # An odd slice is said to be one, with its number, before it is taken for an image of its own.
    refuse_mixed_pages(path.name, tif, largest)
    rivals = [s for s in series if s is not largest and _rivals(s, largest)]
    if rivals:
        raise InputError(
            f"{path.name} holds {len(series)} images ({listed}) that are no parts of one stack; "
            f"choose one with --series 1 to --series {len(series)}"
        )
    return largest


def _rivals(series: tifffile.TiffPageSeries, largest: tifffile.TiffPageSeries) -> bool:
    """Whether this may be what the user wants, and is no thumbnail or label of the slide."""
    lengths = zip(series.keyframe.shape, largest.keyframe.shape, strict=False)
    like_its_slices = all(abs(mine - other) <= 0.1 * other for mine, other in lengths)
    return like_its_slices or series.size > _THUMBNAIL_FRACTION * largest.size


def _colours(series: tifffile.TiffPageSeries) -> tuple[str, ...]:
    """What samples of a pixel are where the file says that they are colours; else nothing."""
    if "S" not in series.axes or series.keyframe.photometric != tifffile.PHOTOMETRIC.RGB:
        return ()
    further = series.shape[series.axes.index("S")] - len(COLOURS)
    return (*COLOURS, *(f"extra {i + 1}" for i in range(further))) if further >= 0 else ()


def _axes_text(series: tifffile.TiffPageSeries) -> str:
    return {"ome": "OME-XML", "imagej": "ImageJ description"}.get(series.kind, "TIFF tags")


def _array_of(
    path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> NDArray[np.generic] | Unread:
    """The voxels of a series: mapped, or read whole when they are needed."""
    page = series.keyframe
    if series.dataoffset is not None and page.is_memmappable:
        mapped: NDArray[np.generic] = np.memmap(
            page.parent.filehandle.path,
            dtype=tif.byteorder + series.dtype.char,
            mode="r",
            offset=series.dataoffset,
            shape=tuple(series.shape),
        )
        return mapped
    return Unread(series.shape, series.dtype, lambda: _decode(path, series))


def _decode(path: Path, series: tifffile.TiffPageSeries) -> NDArray[np.generic]:
    """Voxels that cannot be mapped, compressed ones mostly; the file is opened for that again."""
    with _damage_of(path), series.keyframe.parent.filehandle as file:
        file.open()
        return _decode_pages(path, series)


def _decode_pages(path: Path, series: tifffile.TiffPageSeries) -> NDArray[np.generic]:
    page = series.keyframe
    try:
        array: NDArray[np.generic] = np.asarray(series.asarray())
    except (ValueError, ImportError) as error:
        codec = _missing_codec(error, page)
        if not codec:
            raise
        through_pillow = read_with_pillow(series)
        if through_pillow is not None:
            return through_pillow
        raise InputError(
            f"{path.name} is compressed with {codec}, which needs the package imagecodecs; install "
            "it with: pip install 'cellrt[codecs]', or save the image without compression"
        ) from error
    return array


def _missing_codec(error: Exception, page: tifffile.TiffPage) -> str:
    """Name of the codec that imagecodecs would bring; empty where something else is wrong."""
    named = re.match(r"<\w+\.(\w+): \d+> requires the 'imagecodecs' package", str(error))
    if named:
        return named.group(1)
    return str(getattr(page.compression, "name", "")) if isinstance(error, ImportError) else ""
