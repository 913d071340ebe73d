"""Read TIFF, BigTIFF, ImageJ hyperstacks and OME-TIFF as a `Volume`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellrt.errors import InputError, ResourceError
from cellrt.runtime.image.axes import resolve_axes
from cellrt.runtime.image.formats.tiff_through_pillow import read_with_pillow
from cellrt.runtime.image.formats.tiff_voxel_size import voxel_size_from_file
from cellrt.runtime.image.volume import (
    Provenance,
    Volume,
    assemble,
    check_voxel_size,
    dimensions_message,
)

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


def read_volume(
    path: str | Path,
    *,
    axes: str | None = None,
    voxel_size_um: Sequence[float] | None = None,
    channel: int | str | None = None,
    time: int | None = None,
) -> Volume:
    """Read one time point of a TIFF file, all channels, memory-mapped where the file allows it.

    Axes, voxel size and channels come from the file's metadata unless given here. What the file
    does not say stays unknown, and the provenance of each says where it came from.

    Parameters
    ----------
    path : str or Path
        TIFF, BigTIFF, ImageJ hyperstack or OME-TIFF; plain pages, tiled, compressed or pyramidal
        (the full resolution is read).
    axes : str, optional
        One letter per dimension of the file out of T, C, Z, Y, X, such as ``"ZCYX"``.
    voxel_size_um : sequence of 3 floats, optional
        (z, y, x) in µm.
    channel : int or str, optional
        Channel to segment by number, counted from 1 as ImageJ does, or by name; needed when the
        file holds several.
    time : int, optional
        Time point, counted from 1; needed when the file holds several.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        Missing, truncated or damaged file, no TIFF, ambiguous axes, several channels or time
        points with none chosen, impossible voxel size, NaN or infinite voxels in the channel to
        segment, empty or complex images.
    ResourceError
        Not enough memory for a file that cannot be memory-mapped.
    """
    path = Path(path)
    user_size = None if voxel_size_um is None else check_voxel_size(voxel_size_um)
    _refuse_missing(path)
    with _open_tiff(path) as tif:
        series = _only_series(tif, path)
        if len(series.shape) < 2:
            raise InputError(dimensions_message(path.name, tuple(series.shape)))
        shape = tuple(int(n) for n in series.shape)
        # Where all axes have one voxel the file's reader may name one twice.
        file_axes = series.axes
        if len(set(file_axes)) < len(file_axes):
            file_axes = "Q" * (len(shape) - 2) + "YX"
        resolved = resolve_axes(shape, file_axes, _axes_text(tif), axes, path.name)
        if user_size is None:
            slices = dict(zip(resolved.letters, shape, strict=True)).get("Z", 1)
            size, size_source = voxel_size_from_file(tif, path.name, slices)
        else:
            size, size_source = user_size, Provenance("user", "given by the user")
        names = _channel_names(tif)
        array = _read_array(path, tif, series)
    return assemble(
        array,
        letters=resolved.letters,
        axes_source=Provenance(resolved.origin, resolved.text),
        voxel_size_um=size,
        voxel_size_source=size_source,
        channel_names=names,
        channel=channel,
        time=time,
        path=path,
    )


def read_voxels(path: str | Path) -> NDArray[np.generic]:
    """Read a TIFF file's array as it is stored, for those who know what its axes are.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ndarray
        Axes of length 1 as in the file; memory-mapped where the file allows it.

    Raises
    ------
    InputError
        Missing, truncated or damaged file, or no TIFF.
    """
    path = Path(path)
    _refuse_missing(path)
    with _open_tiff(path) as tif:
        return _read_array(path, tif, _only_series(tif, path))


def _refuse_missing(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected one TIFF file")
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a TIFF file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes); copy or save it again")


@contextmanager
def _open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; whatever goes wrong inside, while decoding too, is one `InputError`."""
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
        if complaints.damage:
            raise _damaged(path, complaints.damage)
    except InputError as error:
        # A damaged file may look like one with odd axes.
        if complaints.damage:
            raise _damaged(path, complaints.damage) from error
        raise
    except MemoryError as error:
        raise ResourceError(f"{path.name} does not fit into memory ({error}); use a crop") from None
    except tifffile.TiffFileError as error:
        if complaints.damage or _has_tiff_magic(path):
            raise _damaged(path, str(error)) from error
        raise InputError(
            f"{path.name} is not a TIFF file; save the image as TIFF or OME-TIFF, for example "
            "with Fiji"
        ) from error
    except Exception as error:
        missing_codec = _missing_codec(str(error))
        if missing_codec:
            raise InputError(
                f"{path.name} is compressed in a way ({missing_codec}) that needs the package "
                "imagecodecs; install it, or save the image without compression"
            ) from error
        raise _damaged(path, str(error) or type(error).__name__) from error
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


def _damaged(path: Path, detail: str) -> InputError:
    without_objects = re.sub(r"^(<[^<>]*>\s*)+", "", " ".join(detail.split()))
    detail = without_objects[:160]
    return InputError(f"{path.name} is truncated or damaged ({detail}); copy or save it again")


def _has_tiff_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _missing_codec(message: str) -> str:
    if "requires the 'imagecodecs' package" not in message:
        return ""
    return message.split()[0].rsplit(".", 1)[-1].strip("<>:0123456789 ")


def _only_series(tif: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    series = list(tif.series)
    if not series:
        raise InputError(f"{path.name} holds no image")
    largest = max(series, key=lambda s: s.size)
    rivals = [s for s in series if s is not largest and s.size > _THUMBNAIL_FRACTION * largest.size]
    if rivals:
        shapes = ", ".join("x".join(map(str, s.shape)) for s in [largest, *rivals][:4])
        raise InputError(
            f"{path.name} holds {len(rivals) + 1} images ({shapes}) that are no parts of one "
            "stack; save the one to segment as its own file"
        )
    return largest


def _axes_text(tif: tifffile.TiffFile) -> str:
    if tif.is_ome:
        return "OME-XML"
    if tif.is_imagej:
        return "ImageJ description"
    return "TIFF tags"


def _channel_names(tif: tifffile.TiffFile) -> list[str] | None:
    if not (tif.is_ome and tif.ome_metadata):
        return None
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
        return None
    pixels = next((e for e in root.iter() if e.tag.rsplit("}", 1)[-1] == "Pixels"), None)
    if pixels is None:
        return None
    channels = [e for e in pixels if e.tag.rsplit("}", 1)[-1] == "Channel"]
    return [c.get("Name") or f"channel {i + 1}" for i, c in enumerate(channels)]


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
    except ValueError as error:
        through_pillow = read_with_pillow(path, series) if _missing_codec(str(error)) else None
        if through_pillow is None:
            raise
        return through_pillow
    return array


def _refuse_missing_bytes(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Compare where the voxels should be with the file's size: tifffile fills gaps with zeros.

    An OME-TIFF may be spread over several files; each page knows the one it is in.
    """
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
        available = series.keyframe.parent.filehandle.size
        if end > available:
            raise _damaged(path, f"{end - available} bytes are missing at its end")
        return
    if series.nbytes > _LARGEST_COMPRESSION * path.stat().st_size * max(1, len(series.pages)):
        raise _damaged(path, f"{series.nbytes} bytes of voxels cannot be in it")
    for number, page in enumerate(series.pages, start=1):
        if page is None:
            raise _damaged(path, f"page {number} of {len(series.pages)} is missing")
        available = page.parent.filehandle.size
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > available:
                raise _damaged(path, f"page {number} reaches beyond its end")
