"""How many voxels each predicted cell shares with each true cell, counted exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellrt.errors import InputError

# Voxels compared at once. Bounds the temporary memory (about 60 MB) without costing speed.
_CHUNK_VOXELS = 1 << 21


@dataclass(frozen=True)
class OverlapTable:
    """Sparse contingency table of two label images.

    Background (label 0) is a row and a column like any cell, so nothing is lost: the table holds
    all that any score of labels against labels can depend on.

    Attributes
    ----------
    prediction_ids, truth_ids : ndarray
        Labels that occur, ascending, 0 included where it occurs; int64, or uint64 for labels that
        need it.
    prediction_voxels, truth_voxels : ndarray of int64
        Number of voxels of each label.
    pair_prediction, pair_truth : ndarray of int64
        Positions in ``prediction_ids`` and ``truth_ids`` of the pairs that share a voxel.
    pair_voxels : ndarray of int64
        Number of shared voxels of each pair, always above 0.
    """

    prediction_ids: NDArray[Any]
    truth_ids: NDArray[Any]
    prediction_voxels: NDArray[np.int64]
    truth_voxels: NDArray[np.int64]
    pair_prediction: NDArray[np.int64]
    pair_truth: NDArray[np.int64]
    pair_voxels: NDArray[np.int64]

    @property
    def voxels(self) -> int:
        """Number of voxels counted."""
        return int(self.pair_voxels.sum())

    def swapped(self) -> OverlapTable:
        """Return the table with prediction and truth exchanged."""
        return OverlapTable(
            prediction_ids=self.truth_ids,
            truth_ids=self.prediction_ids,
            prediction_voxels=self.truth_voxels,
            truth_voxels=self.prediction_voxels,
            pair_prediction=self.pair_truth,
            pair_truth=self.pair_prediction,
            pair_voxels=self.pair_voxels,
        )

    def labelled_only(self) -> OverlapTable:
        """Return the table of only those voxels that have a label in the truth."""
        keep = self.truth_ids[self.pair_truth] != 0
        return _table(
            self.prediction_ids[self.pair_prediction[keep]],
            self.truth_ids[self.pair_truth[keep]],
            self.pair_voxels[keep],
        )


def overlap_table(prediction: ArrayLike, truth: ArrayLike) -> OverlapTable:
    """Count the voxels shared by each predicted and each true label.

    Parameters
    ----------
    prediction, truth : array_like
        Label images of one shape and any number of dimensions, 0 = background. Any integer type
        and any ids (gaps, ids above 2**32); bool counts as one cell; floating point only when all
        values are whole. Arrays that are read on slicing (memory maps, HDF5 and Zarr datasets)
        are read piece by piece.

    Returns
    -------
    OverlapTable
        Exact counts.

    Raises
    ------
    InputError
        When the shapes differ or values are no labels (negative, fractional, not finite, complex).

    Examples
    --------
    >>> table = overlap_table([[1, 1, 0], [2, 2, 2]], [[7, 7, 7], [0, 7, 9]])
    >>> table.truth_ids.tolist(), table.truth_voxels.tolist()
    ([0, 7, 9], [1, 4, 1])
    >>> table.pair_voxels.tolist()
    [1, 2, 1, 1, 1]
    """
    first, second = _sliceable(prediction), _sliceable(truth)
    if first.shape != second.shape:
        raise InputError(
            f"prediction has shape {tuple(first.shape)} and truth {tuple(second.shape)}; both must "
            "be label images of the same grid: crop or resample one of them (nearest neighbour)"
        )
    parts = []
    for chunk in _chunks(first.shape):
        labels = _labels(first[chunk], "prediction")
        true_labels = _labels(second[chunk], "truth")
        parts.append(_count_runs(labels, true_labels))
    if not parts:
        none = np.zeros(0, np.int64)
        return _table(none, none, none)
    return _table(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )


def layered_overlap_table(prediction: ArrayLike, truth: ArrayLike) -> OverlapTable:
    """Count the pixels shared by cells that may overlap, each in one of several layers.

    Parameters
    ----------
    prediction, truth : array_like
        Label images with one more axis in front, along which layers lie: as many as there are. Each
        label is in one of them.

    Returns
    -------
    OverlapTable
        Of cells as of `overlap_table`. Background is what lies in no cell of any layer; a pixel
        counts for every pair of cells that hold it, so the pixels do not add up to the image.

    Raises
    ------
    InputError
        As `overlap_table`, for the shapes without layers, or a label in two of them.

    Examples
    --------
    >>> table = layered_overlap_table([[1, 1, 1, 0]], [[7, 7, 0, 0], [0, 8, 8, 8]])
    >>> table.pair_voxels[table.prediction_ids[table.pair_prediction] == 1].tolist()
    [2, 2]
    """
    layers, true_layers = np.asarray(prediction), np.asarray(truth)
    if layers.shape[1:] != true_layers.shape[1:] or layers.ndim < 2:
        raise InputError(
            f"prediction has layers of shape {layers.shape[1:]} and truth {true_layers.shape[1:]}; "
            "both must be of the same grid: crop or resample one of them (nearest neighbour)"
        )
    first, second = _distinct(layers, "prediction"), _distinct(true_layers, "truth")
    covered, true_covered = (np.any(every, axis=0) for every in (first, second))
    none = np.zeros(covered.size, np.uint8)
    parts = [_counts_where((a > 0) & (b > 0), a, b) for a in first for b in second]
    parts += [_counts_where((a > 0) & ~true_covered, a, none) for a in first]
    parts += [_counts_where((b > 0) & ~covered, none, b) for b in second]
    parts.append(_counts_where(~covered & ~true_covered, none, none))
    table = _table(*(np.concatenate([part[i] for part in parts]) for i in range(3)))
    return replace(
        table,
        prediction_voxels=_sizes(layers, table.prediction_ids),
        truth_voxels=_sizes(true_layers, table.truth_ids),
    )


def _counts_where(
    chosen: NDArray[np.bool_], prediction: NDArray[Any], truth: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Count pairs in the chosen pixels of two flat images."""
    if not chosen.any():
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    return _count_runs(prediction[chosen], truth[chosen])


def _distinct(layers: NDArray[Any], name: str) -> list[NDArray[Any]]:
    """Flat layers of labels; refuses a label in two of them, as channels of other things have."""
    flat = [_labels(layer, name) for layer in layers]
    found, counts = np.unique(
        np.concatenate([np.unique(layer) for layer in flat]), return_counts=True
    )
    twice = (counts > 1) & (found != 0)
    if twice.any():
        raise InputError(
            f"{name} has the label {found[twice][0]} in {counts[twice][0]} channels; expected "
            "layers of cells that overlap, each label in one: save a single channel to score it"
        )
    return flat


def _sizes(layers: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels of each label, whatever else lies there."""
    found, counts = np.unique(layers, return_counts=True)
    sizes = np.zeros(ids.size, np.int64)
    known = np.isin(ids, found)
    sizes[known] = counts[np.searchsorted(found, ids[known])]
    return sizes


def as_layers(image: NDArray[Any], axes: str) -> NDArray[Any]:
    """Give a label image that has no channels one layer, and drop its other axes of length 1."""
    if axes.startswith("C"):
        return image.reshape(len(image), *(n for n in image.shape[1:] if n > 1))
    return image.squeeze()[np.newaxis]


def without_single_axes(first: NDArray[Any], second: NDArray[Any]) -> tuple[Any, Any]:
    """Drop axes of length 1 where only they keep two label images from having one shape."""
    if first.shape != second.shape and first.squeeze().shape == second.squeeze().shape:
        return first.squeeze(), second.squeeze()
    return first, second


def _sliceable(image: Any) -> Any:
    """Return the image itself when it can be sliced by itself, else as an array."""
    if hasattr(image, "shape") and hasattr(image, "dtype") and len(image.shape) > 0:
        return image
    return np.atleast_1d(np.asarray(image))


def _chunks(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Cut a grid along its first axis into pieces of about ``_CHUNK_VOXELS``."""
    if 0 in shape:
        return []
    per_slice = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, _CHUNK_VOXELS // per_slice)
    return [(slice(start, start + step),) for start in range(0, shape[0], step)]


def _labels(piece: Any, name: str) -> NDArray[Any]:
    """Return a flat integer array after checking that the values are labels."""
    values = np.asarray(piece).reshape(-1)
    kind = values.dtype.kind
    if kind == "b":
        return values.view(np.uint8)
    if kind == "u":
        return values
    if kind == "f":
        values = _whole(values, name)
    elif kind != "i":
        raise InputError(
            f"{name} has values of type {values.dtype}, expected a label image of whole numbers"
        )
    if values.size and values.min() < 0:
        raise InputError(
            f"{name} contains the negative label {values.min()}, expected labels from 0 on "
            "(0 = background): set the voxels that have no cell to 0"
        )
    return values


def _whole(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    # 2**53 is where float64 stops telling whole numbers apart: two cells could share an id.
    broken = (whole != values) | ~(np.abs(values) <= 2.0**53)
    if broken.any():
        raise InputError(
            f"{name} is a floating-point image with the value {values[broken][0]}, expected whole "
            "labels: pass the label image, not a probability or an intensity"
        )
    return whole


def _count_runs(
    prediction: NDArray[Any], truth: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Count pairs in one flat piece.

    Labels come in long runs along the last axis, so only the runs are sorted, not the voxels.
    """
    size = prediction.size
    change = np.empty(size, bool)
    change[0] = True
    np.not_equal(prediction[1:], prediction[:-1], out=change[1:])
    change[1:] |= truth[1:] != truth[:-1]
    starts = np.flatnonzero(change)
    lengths = np.diff(starts, append=size)
    return _sum_pairs(prediction[starts], truth[starts], lengths)


def _sum_pairs(
    prediction: NDArray[Any], truth: NDArray[Any], voxels: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Add up the entries of equal pairs; the result is sorted by prediction, then truth."""
    if voxels.size == 0:
        return prediction, truth, voxels
    if max(int(prediction.max()), int(truth.max())) < 1 << 32:
        # One 64-bit key sorts several times faster than two columns.
        key = (prediction.astype(np.uint64) << np.uint64(32)) | truth.astype(np.uint64)
        order = np.argsort(key, kind="stable")
        key = key[order]
        new = np.empty(key.size, bool)
        np.not_equal(key[1:], key[:-1], out=new[1:])
    else:
        order = np.lexsort((truth, prediction))
        first, second = prediction[order], truth[order]
        new = np.empty(order.size, bool)
        new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    new[0] = True
    starts = np.flatnonzero(new)
    kept = order[starts]
    return prediction[kept], truth[kept], np.add.reduceat(voxels[order], starts)


def _table(
    prediction: NDArray[Any], truth: NDArray[Any], voxels: NDArray[np.int64]
) -> OverlapTable:
    prediction, truth, voxels = _sum_pairs(prediction, truth, voxels)
    ids, rows = np.unique(_canonical(prediction), return_inverse=True)
    true_ids, columns = np.unique(_canonical(truth), return_inverse=True)
    return OverlapTable(
        prediction_ids=ids,
        truth_ids=true_ids,
        prediction_voxels=_totals(rows, voxels, ids.size),
        truth_voxels=_totals(columns, voxels, true_ids.size),
        pair_prediction=rows.astype(np.int64),
        pair_truth=columns.astype(np.int64),
        pair_voxels=voxels.astype(np.int64),
    )


def _canonical(ids: NDArray[Any]) -> NDArray[Any]:
    """Return int64 ids, or uint64 where int64 cannot hold them."""
    if ids.dtype == np.uint64 and ids.size and ids.max() > np.iinfo(np.int64).max:
        return ids
    return ids.astype(np.int64)


def _totals(index: NDArray[Any], voxels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    # bincount with weights works in float64, exact up to 2**53 voxels.
    return np.bincount(index, weights=voxels, minlength=count).astype(np.int64)
