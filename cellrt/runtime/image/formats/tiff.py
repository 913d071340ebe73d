"""Read TIFF, BigTIFF, ImageJ hyperstacks and OME-TIFF."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.runtime.image.formats.damage import damaged, raised_in
from cellrt.runtime.image.formats.tiff_ome import channel_names, pixels_of
from cellrt.runtime.image.formats.tiff_through_pillow import read_with_pillow
from cellrt.runtime.image.formats.tiff_voxel_size import stated_size
from cellrt.runtime.image.stored import Stored

# Size, kind and place of the voxels, and the description that holds the axes.
_ESSENTIAL_TAGS = {*range(256, 260), 262, 270, 273, *range(277, 280), 284, 317, *range(322, 326)}
_ESSENTIAL_TAGS |= {330, 339}
_TAG = re.compile(r"TiffTag (\d+)")
_DAMAGE = re.compile(
    r"TiffPages|corrupt|[Mm]issing|out of range|invalid TiffData|failed to re(ad|shape)"
    r"|series raised"
)
# No codec packs blank voxels tighter; a larger image is a damaged size that would take all memory.
_LARGEST_COMPRESSION = 20_000
# A second image this much smaller than the first is a thumbnail or a label of the slide.
_THUMBNAIL_FRACTION = 0.05


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
        series = _choose_series(tif, path, inside)
        # Where all axes have one voxel the file's reader may name one twice.
        axes = series.axes
        if len(set(axes)) < len(axes):
            axes = ("Q" * len(axes))[2:] + "YX"
        pixels = pixels_of(tif, series)
        return Stored(
            _read_array(path, tif, series),
            axes=axes,
            axes_text=_axes_text(series),
            size=stated_size(tif, series, pixels),
            channel_names=None if pixels is None else channel_names(pixels),
        )


@contextmanager
def _open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; whatever tifffile finds wrong inside, while decoding too, is one error."""
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
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
        raise damaged(path.name, str(error) or type(error).__name__) from error
    finally:
        logger.removeHandler(complaints)
        logger.propagate = propagate


class _Complaints(logging.Handler):
    """Keeps what tifffile logs instead of raising: it reads past damage with zeros in its place.

    It also logs what does no harm, such as odd private tags and file names, which is let pass.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.damage = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
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
        named = [s for s in series if s.name == wanted]
        if len(named) == 1:
            return named[0]
        if wanted.isdecimal() and 1 <= int(wanted) <= len(series):
            return series[int(wanted) - 1]
        raise InputError(
            f"{path.name} has no image {wanted!r}; it holds {len(series)}, counted from 1: {listed}"
        )
    largest = max(series, key=lambda s: s.size)
    rivals = [s for s in series if s is not largest and s.size > _THUMBNAIL_FRACTION * largest.size]
    if rivals:
        raise InputError(
            f"{path.name} holds {len(series)} images ({listed}) that are no parts of one stack; "
            f"choose one with --series 1 to --series {len(series)}"
        )
    return largest


def _axes_text(series: tifffile.TiffPageSeries) -> str:
    return {"ome": "OME-XML", "imagej": "ImageJ description"}.get(series.kind, "TIFF tags")


def _read_array(
    path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> NDArray[np.generic]:
    _refuse_missing_bytes(path, series)
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
    return str(page.compression.name) if isinstance(error, ImportError) else ""


def _refuse_missing_bytes(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Compare where the voxels should be with the file's size: tifffile fills gaps with zeros.

    An OME-TIFF may be spread over several files; each page knows the one it is in.
    """
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
        available = series.keyframe.parent.filehandle.size
        if end > available:
            raise damaged(path.name, f"{end - available} bytes are missing at its end")
        return
    if series.nbytes > _LARGEST_COMPRESSION * path.stat().st_size * max(1, len(series.pages)):
        raise damaged(path.name, f"{series.nbytes} bytes of voxels cannot be in it")
    for number, page in enumerate(series.pages, start=1):
        if page is None:
            raise damaged(path.name, f"page {number} of {len(series.pages)} is missing")
        available = page.parent.filehandle.size
        if len(page.dataoffsets) != len(page.databytecounts):
            raise damaged(path.name, f"page {number} does not say where all of its parts are")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > available:
                raise damaged(path.name, f"page {number} reaches beyond its end")
