"""Whether the pages of a TIFF file are those that its description promises, whole and of a kind."""

from __future__ import annotations

import tifffile

from cellrt.errors import InputError
from cellrt.runtime.image.formats.damage import damaged
from cellrt.wording import counted

# No codec packs blank voxels tighter; a larger image is a damaged size that would take all memory.
_LARGEST_COMPRESSION = 20_000
_REDUCED = 1  # bit of NewSubfileType


def refuse_missing_bytes(name: str, series: tifffile.TiffPageSeries) -> None:
    """Compare where the voxels should be with the file's size: tifffile fills gaps with zeros.

    An OME-TIFF may be spread over several files; each page knows the one it is in.

    Raises
    ------
    InputError
    """
    home = series.keyframe.parent.filehandle
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
        if end > home.size:
            raise damaged(name, f"{counted(end - home.size, 'byte')} missing at its end")
        return
    if series.nbytes > _LARGEST_COMPRESSION * home.size * max(1, len(series.pages)):
        raise damaged(name, f"{series.nbytes} bytes of voxels cannot be in it")
    for number, page in enumerate(series.pages, start=1):
        if page is None:
            raise damaged(name, f"page {number} of {len(series.pages)} is missing")
        available = page.parent.filehandle.size
        if len(page.dataoffsets) != len(page.databytecounts):
            raise damaged(name, f"page {number} does not say where all of its parts are")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > available:
                raise damaged(name, f"page {number} reaches beyond its end")


def refuse_mixed_pages(name: str, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Look at each page: tifffile reads all of a series as if they were like the first.

    Raises
    ------
    InputError
        A page has another size, type or compression; its number is said.
    """
    first = series.keyframe
    pages = [page for page in series.pages if page is not None and page.parent is first.parent]
    if first.parent is not tif:  # the file of an OME set that is closed by now
        return
    # Where voxels lie one after the other only the last page can be of another size.
    for page in pages if series.dataoffset is None else pages[-1:]:
        _refuse_other_page(name, page, first)
    # Without a description tifffile leaves pages of another kind out, slices as well.
    numbers = {page.index for page in pages}
    if series.kind in ("generic", "uniform") and all(isinstance(i, int) for i in numbers):
        for number in sorted(set(range(min(numbers), max(numbers))) - numbers):
            page = tif.pages[number].aspage()
            if not int(page.tags.valueof("NewSubfileType", 0)) & _REDUCED:
                _refuse_other_page(name, page, first)


def _refuse_other_page(name: str, page: tifffile.TiffPage, first: tifffile.TiffPage) -> None:
    page = page.aspage()
    if (page.shape, page.dtype, page.compression) != (first.shape, first.dtype, first.compression):
        raise InputError(
            f"{name}: page {page.index + 1} is {_kind(page)}, page {first.index + 1} is "
            f"{_kind(first)}; expected slices of one kind: save them all in the same way"
        )


def _kind(page: tifffile.TiffPage) -> str:
    # Of a number that means nothing tifffile makes no member of its enumeration.
    codec = getattr(page.compression, "name", str(page.compression))
    packed = "" if codec == "NONE" else f", {codec}"
    return f"{'x'.join(map(str, page.shape))} {page.dtype}{packed}"


def as_far_as_written(
    name: str, tif: tifffile.TiffFile
) -> tuple[tifffile.TiffPageSeries, str] | None:
    """Series of the pages that an ImageJ stack holds, where they are not as many as promised.

    Acquisitions that are stopped leave such files: the description was written first. Slices of
    which a channel is missing are left out, and time points that are not whole where others are.

    Returns
    -------
    (TiffPageSeries, str) or None
        What can be read, and a warning; None where the pages are as promised, or the first one
        stands for all of them.

    Raises
    ------
    InputError
        One page is left of many, as of a file that was cut.
    """
    promised = tif.imagej_metadata or {}
    frames, slices, channels = (
        value if isinstance(value := promised.get(axis, 1), int) else 0
        for axis in ("frames", "slices", "channels")
    )
    wanted, held = frames * slices * channels, len(tif.pages)
    first = tif.pages.first
    if (
        tif.is_ome
        or min(frames, slices, channels) < 1
        or wanted in (1, held)
        or first.samplesperpixel > 1
        or str(promised.get("order", "czt")).lower() not in ("czt", "default")
        or _first_stands_for_all(tif, wanted)
    ):
        return None
    if held == 1:
        raise damaged(name, f"one image of {wanted} is left")
    whole = held // (slices * channels)
    shape = (min(frames, whole), slices, channels) if whole else (1, held // channels, channels)
    count = shape[0] * shape[1] * shape[2]
    if count == 0:
        return None
    pages = [tif.pages[number].aspage() for number in range(count)]
    series = tifffile.TiffPageSeries(
        pages, (*shape, *first.shape), first.dtype, f"TZC{first.axes}", parent=tif, kind="imagej"
    )
    parts = [
        f"{length} {what}"
        for length, what in zip(shape, ("time points", "slices", "channels"), strict=True)
        if length > 1
    ]
    return series, (
        f"{name} describes {counted(wanted, 'image')} and holds {held}"
        f"{', as when recording was stopped' if held < wanted else ''}; read: "
        f"{' of '.join(parts) or 'one slice'}"
    )


def _first_stands_for_all(tif: tifffile.TiffFile, images: int) -> bool:
    """Whether all voxels follow those of the first page, as ImageJ writes large stacks."""
    first = tif.pages.first
    end = first.dataoffsets[0] + images * first.nbytes
    second = tif.pages[1].offset if len(tif.pages) > 1 else end
    return bool(
        first.is_final and end <= tif.filehandle.size and not first.dataoffsets[0] < second < end
    )
