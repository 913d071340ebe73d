"""A table with one row per cell: where it is, how large, of what shape, how bright."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.geometry import Box
from cellrt.runtime.image.source import Voxels
from cellrt.runtime.results.label_sums import crossing_sums, intensity_sums, shape_sums
from cellrt.runtime.results.surface_weights import perimeter_weights, surface_weights
from cellrt.threads import in_threads
from cellrt.wording import counted

_MOST_ROWS = 1_000_000


@dataclass(frozen=True, eq=False)
class CellTable:
    """Measurements of cells, one row each, in order of their id.

    Attributes
    ----------
    columns : dict of str to ndarray, each of shape (cells,)
    unit : {"um", "voxels"}
        Unit of lengths, also the end of the columns' names. Voxels where the size of a voxel is not
        known; a length is then in units of the voxel's x size.
    """

    columns: dict[str, NDArray[Any]]
    unit: str

    def __repr__(self) -> str:
        columns = counted(len(self.columns), "column")
        return f"<CellTable: {counted(len(self), 'cell')}, {columns}, in {self.unit}>"

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> CellTable:
        """The same cells with more columns, right after what their shape is."""
        named = [name for name in self.columns if "_channel_" not in name]
        known = self.columns
        return CellTable({**{name: known[name] for name in named}, **columns, **known}, self.unit)

    def only(self, keep: NDArray[np.bool_]) -> CellTable:
        """The cells to keep, numbered from 1."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        columns["id"] = np.arange(1, np.count_nonzero(keep) + 1, dtype=np.int64)
        return CellTable(columns, self.unit)

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError(
                "a DataFrame needs pandas: pip install pandas, or use the table's columns"
            ) from None
        return pd.DataFrame(self.columns)

    def write_csv(self, path: str | Path) -> None:
        """Write comma-separated values, UTF-8, a header line, numbers with 7 digits."""
        columns = self.columns.values()
        form = ",".join("%d" if c.dtype.kind in "iu" else "%.7g" for c in columns) + "\n"
        rows = zip(*(column.tolist() for column in columns), strict=True)
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            file.write(",".join(self.columns) + "\n")
            file.write("".join(map(form.__mod__, rows)))


def measure(
    labels: NDArray[np.integer[Any]],
    intensity: Iterable[Voxels] | None = None,
    voxel_size_um: Sequence[float] | None = None,
    *,
    anisotropy: float = 1.0,
    box: Box | None = None,
) -> CellTable:
    """Measure every cell of a label image in a time that depends on the voxels only.

    Parameters
    ----------
    labels : ndarray of int, shape (z, y, x)
        0 is background; ids need not be consecutive.
    intensity : one ndarray or VoxelSource of shape (z, y, x) per channel, any real dtype, optional
        Read slice by slice.
    voxel_size_um : (z, y, x) in µm, optional
        Without it all measures are in voxels.
    anisotropy : float
        z size over x size of a voxel, used when ``voxel_size_um`` is not given.
    box : (slice, slice, slice), optional
        Where the image ends, if not with the labels.

    Returns
    -------
    CellTable
        Columns for a stack, with unit u as in `CellTable` (``_um``, ``_um2``, ``_um3``):

        - ``id``;
        - ``centroid_{z,y,x}_u`` and ``..._voxels``, from the centre of the first voxel;
        - ``volume_u3`` and ``volume_voxels``;
        - ``surface_u2``: Crofton estimate of a closed surface, cut faces at the image border
          included, see `cellrt.runtime.results.surface_weights`;
        - ``equivalent_diameter_u``: of the sphere of the same volume;
        - ``sphericity``: surface of that sphere over the cell's surface, at most 1;
        - ``axis_{major,middle,minor}_u``: full axes of the ellipsoid with the same second moments;
        - ``major_axis_{z,y,x}``: unit vector, largest component positive;
        - ``box_{z,y,x}_{start,stop}_voxels``: bounding box, stop is the first voxel beyond;
        - ``touches_border``: 1 where the cell touches a face of the image and may be cut;
        - ``{mean,min,max,sd}_channel_N`` with N from 1; sd is the population's (divided by n).

        For an image of one slice: ``area_u2``, ``perimeter_u``, ``circularity`` and axes in the
        plane in place of volume, surface and sphericity.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3:
        raise ValueError(f"labels have shape {labels.shape}; expected (z, y, x)")
    largest = int(labels.max(initial=0))
    if labels.min(initial=0) < 0:
        raise ValueError("labels below 0; expected 0 for background and positive ids")
    names: NDArray[Any] | None = None
    if largest > max(_MOST_ROWS, labels.size):
        # Sums are kept for every id up to the largest one: make scattered ids consecutive.
        names, consecutive = np.unique(labels, return_inverse=True)
        labels = consecutive.reshape(labels.shape).astype(np.int32) + np.int32(names[0] > 0)
        names = names if names[0] == 0 else np.concatenate([[0], names])
        largest = len(names) - 1
    contiguous = np.ascontiguousarray(labels, dtype=np.int32)
    unit = "um" if voxel_size_um is not None else "voxels"
    z, y, x = voxel_size_um if voxel_size_um is not None else (anisotropy, 1.0, 1.0)
    spacing = (float(z), float(y), float(x))
    flat = labels.shape[0] == 1
    weights = perimeter_weights(spacing) if flat else surface_weights(spacing)

    def intensities() -> list[NDArray[np.float64]]:
        images = () if intensity is None else intensity
        return [intensity_sums(contiguous, image, largest) for image in images]

    # At the same time: the first two take one core each, as they add up in the order of the voxels.
    works: tuple[Callable[[], Any], ...] = (
        intensities,
        lambda: shape_sums(contiguous, largest),
        lambda: crossing_sums(contiguous, largest, weights),
    )
    done = in_threads(
        len(works), lambda lo, hi: [work() for work in works[lo:hi]], voxels=contiguous.size
    )
    channels, (boxes, moments), surface = (result for part in done for result in part)
    ids = np.flatnonzero(moments[:, 3])
    nz, ny, nx = labels.shape
    ends = box or (slice(0, nz), slice(0, ny), slice(0, nx))
    columns = _shape_columns(ids, boxes[ids], moments[ids], surface[ids], spacing, flat, ends, unit)
    for number, sums in enumerate(channels, start=1):
        columns.update(_intensity_columns(sums[ids], number))
    if names is not None:
        columns["id"] = names[ids].astype(np.int64)
    return CellTable(columns, unit)


def measure_slices(
    labels: NDArray[np.int32],
    intensity: Sequence[Voxels] = (),
    voxel_size_um: Sequence[float] | None = None,
    box: Box | None = None,
) -> CellTable:
    """Measure cells of which each lies in one slice, as those of images of one slice.

    Parameters
    ----------
    labels : ndarray, int32, shape (z, y, x)
        Ids ascend with the slices.
    intensity, voxel_size_um, box
        As for `measure`.

    Returns
    -------
    CellTable
        Columns as for an image of one slice; the slice is that of ``centroid_z_voxels``.
    """
    tables = []
    before = 0
    flat = None if box is None else (slice(0, 1), *box[1:])
    for z in range(len(labels)):
        # Numbered from 1 in every slice: sums are kept for all ids up to the largest.
        plane = np.maximum(labels[z : z + 1] - np.int32(before), 0)
        images = [np.asarray(image[z : z + 1]) for image in intensity]
        table = measure(plane, images, voxel_size_um, box=flat)
        columns = dict(table.columns)
        columns["id"] = columns["id"] + before
        for name in ("centroid_z_voxels", "box_z_start_voxels", "box_z_stop_voxels"):
            columns[name] = columns[name] + z
        tables.append(columns)
        before = max(before, int(labels[z].max(initial=0)))
    joined = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
    return CellTable(joined, table.unit)


def warm_up() -> None:
    """Compile what `measure` needs, so that it can happen while something else runs."""
    measure(np.ones((2, 3, 3), np.int32), np.ones((1, 2, 3, 3), np.float32))


def _shape_columns(
    ids: NDArray[np.intp],
    boxes: NDArray[np.int64],
    moments: NDArray[np.int64],
    surface: NDArray[np.float64],
    spacing: tuple[float, float, float],
    flat: bool,
    box: Box,
    unit: str,
) -> dict[str, NDArray[Any]]:
    count = moments[:, 3]
    mean = moments[:, 4:7] / count[:, None]
    centroid = moments[:, 0:3] + mean
    columns: dict[str, NDArray[Any]] = {"id": ids.astype(np.int64)}
    if unit == "um":
        for k, axis in enumerate("zyx"):
            columns[f"centroid_{axis}_um"] = centroid[:, k] * spacing[k]
    for k, axis in enumerate("zyx"):
        columns[f"centroid_{axis}_voxels"] = centroid[:, k]
    lengths, major = _principal_axes(moments, mean, spacing, flat)
    if flat:
        _add_flat_columns(columns, count, surface, spacing, unit)
        names = ["major", "minor"]
    else:
        _add_solid_columns(columns, count, surface, spacing, unit)
        names = ["major", "middle", "minor"]
    for k, name in enumerate(names):
        columns[f"axis_{name}_{unit}"] = lengths[:, k]
    for k, axis in enumerate("zyx"):
        columns[f"major_axis_{axis}"] = major[:, k]
    for k, axis in enumerate("zyx"):
        columns[f"box_{axis}_start_voxels"] = boxes[:, k]
        columns[f"box_{axis}_stop_voxels"] = boxes[:, k + 3]
    # One slice always touches both z faces: that says nothing.
    axes = [1, 2] if flat else [0, 1, 2]
    touches = np.zeros(len(ids), dtype=bool)
    for k in axes:
        touches |= (boxes[:, k] <= box[k].start) | (boxes[:, k + 3] >= box[k].stop)
    columns["touches_border"] = touches.astype(np.int64)
    return columns


def _add_solid_columns(
    columns: dict[str, NDArray[Any]],
    count: NDArray[np.int64],
    surface: NDArray[np.float64],
    spacing: tuple[float, float, float],
    unit: str,
) -> None:
    # In units of the x size where the true size is unknown, so that shape measures agree.
    volume = count * math.prod(spacing)
    if unit == "um":
        columns["volume_um3"] = volume
    columns["volume_voxels"] = count
    columns["surface_um2" if unit == "um" else "surface_voxels"] = surface
    diameter = np.cbrt(6.0 / math.pi * volume)
    columns[f"equivalent_diameter_{unit}"] = diameter
    columns["sphericity"] = np.minimum(1.0, math.pi * diameter**2 / surface)


def _add_flat_columns(
    columns: dict[str, NDArray[Any]],
    count: NDArray[np.int64],
    perimeter: NDArray[np.float64],
    spacing: tuple[float, float, float],
    unit: str,
) -> None:
    area = count * spacing[1] * spacing[2]
    if unit == "um":
        columns["area_um2"] = area
    columns["area_voxels"] = count
    columns[f"perimeter_{unit}"] = perimeter
    columns[f"equivalent_diameter_{unit}"] = np.sqrt(4.0 / math.pi * area)
    columns["circularity"] = np.minimum(1.0, 4.0 * math.pi * area / perimeter**2)


def _principal_axes(
    moments: NDArray[np.int64],
    mean: NDArray[np.float64],
    spacing: tuple[float, float, float],
    flat: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Full axes of the ellipsoids with the same second moments, and the longest one's direction."""
    count = moments[:, 3].astype(np.float64)
    zz, yy, xx, zy, zx, yx = (moments[:, 7 + k] / count for k in range(6))
    products = np.stack([zz, zy, zx, zy, yy, yx, zx, yx, xx], axis=1).reshape(-1, 3, 3)
    # A voxel is a box, not a point: its own second moment is 1/12.
    covariance = products - mean[:, :, None] * mean[:, None, :] + np.eye(3) / 12.0
    covariance *= np.outer(spacing, spacing)
    first = 1 if flat else 0
    values, vectors = np.linalg.eigh(covariance[:, first:, first:])
    # A solid ellipsoid with semi-axis a has variance a²/5 along it, a filled ellipse a²/4.
    lengths = 2.0 * np.sqrt((4.0 if flat else 5.0) * np.maximum(values[:, ::-1], 0.0))
    major = np.zeros((len(count), 3))
    major[:, first:] = vectors[:, :, -1]
    largest = np.take_along_axis(major, np.abs(major).argmax(axis=1)[:, None], axis=1)
    return lengths, major * np.where(largest < 0, -1.0, 1.0)


def _intensity_columns(sums: NDArray[np.float64], number: int) -> dict[str, NDArray[Any]]:
    reference, count, total, squares, low, high = sums.T
    mean = total / count
    # Channels that were not segmented may hold anything, NaN and the largest numbers included.
    with np.errstate(over="ignore", invalid="ignore"):
        variance = np.maximum(squares / count - mean**2, 0.0)
    return {
        f"mean_channel_{number}": reference + mean,
        f"min_channel_{number}": low,
        f"max_channel_{number}": high,
        f"sd_channel_{number}": np.sqrt(variance),
    }
