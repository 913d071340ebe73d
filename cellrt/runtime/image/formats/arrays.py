"""Read label images to score: TIFF, HDF5, NumPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError

_TIFF = (".tif", ".tiff", ".btf", ".tf8")
_HDF5 = (".h5", ".hdf5", ".hdf")
_NUMPY = (".npy", ".npz")


def read_labels(source: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a label image.

    Parameters
    ----------
    source : str or path
        ``labels.tif`` (any TIFF), ``stack.h5:dataset`` (HDF5; the name can be left out when the
        file holds one dataset; needs h5py), ``labels.npy`` (memory-mapped) or
        ``stack.npz:array``.

    Returns
    -------
    ndarray
        The stored values in their stored type and shape.

    Raises
    ------
    InputError
        When the file is missing, damaged or of another kind, the dataset is not in it, or several
        are and none is named.
    """
    path, name = _split(os.fspath(source))
    if not path.exists():
        raise InputError(f"{path} does not exist, expected a label image: check the path")
    suffix = path.suffix.lower()
    with _readable(path):
        if suffix in _TIFF:
            return _read_tiff(path)
        if suffix in _HDF5:
            return _read_hdf5(path, name)
        if suffix in _NUMPY:
            return _read_numpy(path, name)
    raise InputError(
        f"{path.name} has the ending '{path.suffix}', expected a label image as "
        f"{', '.join((*_TIFF[:2], *_HDF5[:1], *_NUMPY))}: convert it to TIFF"
    )


def without_single_axes(first: NDArray[Any], second: NDArray[Any]) -> tuple[Any, Any]:
    """Drop axes of length 1 where only they keep two label images from having one shape."""
    if first.shape != second.shape and first.squeeze().shape == second.squeeze().shape:
        return first.squeeze(), second.squeeze()
    return first, second


def _split(source: str) -> tuple[Path, str | None]:
    """Separate ``file.h5:dataset``, minding drive letters and colons in other file names."""
    before, colon, after = source.rpartition(":")
    if colon and before.lower().endswith((*_HDF5, ".npz")):
        return Path(before), after
    return Path(source), None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a file library raises on a damaged file into one clear line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # tifffile, h5py and zipfile have no common base class
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{path.name} cannot be read as {path.suffix.lower()[1:].upper()} "
            f"({reason[0] if reason else type(error).__name__}): "
            "the file may be truncated or of another kind; write it again"
        ) from error


def _read_tiff(path: Path) -> NDArray[Any]:
    import tifffile

    labels: NDArray[Any] = tifffile.imread(path)
    return labels


def _read_hdf5(path: Path, name: str | None) -> NDArray[Any]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path.name} is HDF5, which needs the package h5py: pip install h5py, or use TIFF"
        ) from error

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(
            lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None
        )
        labels: NDArray[Any] = file[_one_of(names, name, path)][()]
    return labels


def _read_numpy(path: Path, name: str | None) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    with np.load(path, allow_pickle=False) as file:
        labels: NDArray[Any] = file[_one_of(list(file.files), name, path)]
    return labels


def _one_of(names: list[str], wanted: str | None, path: Path) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is not None and wanted.strip("/") in names:
        return wanted.strip("/")
    listed = ", ".join(names) or "none"
    problem = "was given without a dataset" if wanted is None else f"has no dataset '{wanted}'"
    raise InputError(
        f"{path.name} {problem}, it holds: {listed}; write {path.name}:NAME with one of them"
    )
