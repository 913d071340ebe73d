"""Write label images that Fiji, napari and cellrt itself read back with axes and voxel size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellrt.limits import usable_cores
from cellrt.runtime.image.formats.tiff_voxel_size import LABELS_SOFTWARE
from cellrt.runtime.image.volume import Volume

LARGEST_IMAGEJ_LABEL = 65_535
"""ImageJ's TIFF has no 32-bit integers."""

# Classic TIFF ends at 4 GiB; the margin is for the page directories.
_CLASSIC_TIFF_BYTES = 2**32 - 2**26


def write_labels(path: str | Path, labels: NDArray[np.integer[Any]], volume: Volume) -> None:
    """Write labels as TIFF with the axes and voxel size of the image they belong to.

    Up to 65 535 cells it is an ImageJ hyperstack of 16-bit integers. Beyond, or where that would
    pass 4 GiB, it is an OME-TIFF of 32-bit integers (a BigTIFF where needed), under the same file
    name; Fiji opens that through Bio-Formats. So is whatever is called ``.ome.tif``. Both are
    compressed with zlib, which ImageJ reads, and say in their software tag that they are labels.

    Parameters
    ----------
    path : str or Path
    labels : ndarray of int, shape (z, y, x)
        0 is background.
    volume : Volume
        The image that was segmented. An image without a z axis gives labels (y, x).
    """
    if labels.shape != volume.shape:
        raise ValueError(f"labels {labels.shape} do not fit the volume {volume.shape}")
    axes = "ZYX" if "Z" in volume.file_axes or not volume.is_2d else "YX"
    # ImageJ knows no difference between one slice with and without a z axis.
    _write(Path(path), labels, axes, (len(labels), 1), volume)


def write_layers(path: str | Path, layers: NDArray[np.integer[Any]], volume: Volume) -> None:
    """Write labels that overlap in a plane as TIFF, one channel per layer; see `write_labels`.

    Parameters
    ----------
    path : str or Path
    layers : ndarray of int, shape (layer, y, x)
        As from :func:`cellrt.runtime.results.masks.layers_of`.
    volume : Volume
        The image of one slice that they belong to.
    """
    if (1, *layers.shape[1:]) != volume.shape:
        raise ValueError(f"layers {layers.shape} do not fit the volume {volume.shape}")
    _write(Path(path), layers, "CYX", (1, len(layers)), volume)


def _write(
    path: Path, pages: NDArray[Any], axes: str, slices_and_channels: tuple[int, int], volume: Volume
) -> None:
    promises_ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    largest = int(pages.max(initial=0))
    fits_imagej = largest <= LARGEST_IMAGEJ_LABEL and 2 * pages.size < _CLASSIC_TIFF_BYTES
    if fits_imagej and not promises_ome:
        _write_imagej(path, pages, slices_and_channels, volume)
    else:
        _write_ome(path, pages, axes, volume)


def _write_imagej(
    path: Path, labels: NDArray[Any], slices_and_channels: tuple[int, int], volume: Volume
) -> None:
    z, y, x = volume.voxel_size_um or (None, None, None)
    # The full form keeps images that are one voxel wide from being taken for something else.
    metadata: dict[str, Any] = {"axes": "TZCYXS", "min": 0.0, "max": float(labels.max(initial=1))}
    resolution = (1.0, 1.0)
    if y is not None and x is not None:
        resolution = (1.0 / x, 1.0 / y)
        metadata["unit"] = "um"
        if z is not None:
            metadata["spacing"] = z
    if slices_and_channels[1] > 1:
        metadata["mode"] = "grayscale"
    tifffile.imwrite(
        path,
        _pages(labels, "<u2"),
        shape=(1, *slices_and_channels, *labels.shape[1:], 1),
        dtype=np.uint16,
        photometric="minisblack",
        imagej=True,
        byteorder="<",
        compression="zlib",
        rowsperstrip=labels.shape[1],
        resolution=resolution,
        software=LABELS_SOFTWARE,
        metadata=metadata,
    )


def _write_ome(path: Path, labels: NDArray[Any], axes: str, volume: Volume) -> None:
    metadata: dict[str, Any] = {"axes": axes, "Name": "labels"}
    for axis, size in zip("ZYX", volume.voxel_size_um or (None, None, None), strict=True):
        if size is not None:
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    tifffile.imwrite(
        path,
        _pages(labels, "<u4"),
        shape=labels.shape[-len(axes) :],
        dtype=np.uint32,
        ome=True,
        byteorder="<",
        bigtiff=4 * labels.size >= _CLASSIC_TIFF_BYTES,
        photometric="minisblack",
        compression="zlib",
        rowsperstrip=labels.shape[1],
        software=LABELS_SOFTWARE,
        metadata=metadata,
    )


def _pages(labels: NDArray[Any], dtype: str) -> Iterator[bytes]:
    """Convert and compress page by page, on all cores: the narrow copy of all never exists."""

    def compressed(page: NDArray[Any]) -> bytes:
        return zlib.compress(page.astype(dtype, order="C").data)

    if len(labels) == 1:
        yield compressed(labels[0])
        return
    cores = usable_cores().number
    with ThreadPoolExecutor(cores, thread_name_prefix="compress") as pool:
        for begin in range(0, len(labels), 4 * cores):
            yield from pool.map(compressed, labels[begin : begin + 4 * cores])
