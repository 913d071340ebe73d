"""Arrays from files, as they are stored: NumPy, HDF5 and Zarr, and label images from TIFF, too.

An array inside a file is addressed as ``file.h5:dataset``, ``store.zarr:array`` or
``file.npz:array``; the name can be left out where the file holds one.
"""

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
_ZARR = (".zarr",)
_NUMPY = (".npy", ".npz")
ENDINGS = (*_NUMPY, *_HDF5, *_ZARR)


def read_labels(source: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a label image.

    Parameters
    ----------
    source : str or path
        ``labels.tif`` (any TIFF), or an address as :func:`read_array` takes it.

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
    file, _ = split_address(os.fspath(source))
    path = Path(file)
    if not path.exists():
        raise InputError(f"{path} does not exist, expected a label image: check the path")
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        with _readable(path):
            return _read_tiff(path)
    if suffix in ENDINGS:
        return read_array(source)
    raise InputError(
        f"{path.name} has the ending '{path.suffix}', expected a label image as "
        f"{', '.join((*_TIFF[:2], *_HDF5[:1], *_ZARR, *_NUMPY))}: convert it to TIFF"
    )


def read_array(source: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array as it is stored.

    Parameters
    ----------
    source : str or path
        ``stack.h5:dataset`` (HDF5; needs h5py), ``store.zarr:array`` (needs zarr), ``stack.npy``
        (memory-mapped) or ``stack.npz:array``.

    Returns
    -------
    ndarray
        The stored values in their stored type and shape.

    Raises
    ------
    InputError
        When the file is missing, damaged or has another ending than those of `ENDINGS`, the array
        is not in it, or several are and none is named.
    """
    file, name = split_address(os.fspath(source))
    path = Path(file)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
    suffix = path.suffix.lower()
    with _readable(path):
        if suffix in _HDF5:
            return _read_hdf5(path, name)
        if suffix in _ZARR:
            return _read_zarr(path, name)
        if suffix in _NUMPY:
            return _read_numpy(path, name)
    raise InputError(
        f"{path.name} has the ending '{path.suffix}', expected one of {', '.join(ENDINGS)}"
    )


def split_address(address: str) -> tuple[str, str]:
    """Split ``file.h5:dataset`` into file and dataset; the second is empty when there is none.

    Examples
    --------
    >>> split_address("a/b.zarr:0/raw"), split_address("C:/b.tif")
    (('a/b.zarr', '0/raw'), ('C:/b.tif', ''))
    """
    lower = address.lower()
    for suffix in (*_HDF5, *_ZARR, ".npz"):
        at = lower.rfind(f"{suffix}:")
        if at >= 0:
            end = at + len(suffix)
            return address[:end], address[end + 1 :]
    return address, ""


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


def _read_hdf5(path: Path, name: str) -> NDArray[Any]:
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
        array: NDArray[Any] = file[_one_of(names, name, path)][()]
    return array


def _read_zarr(path: Path, name: str) -> NDArray[Any]:
    try:
        import zarr
    except ImportError as error:
        raise InputError(
            f"{path.name} is Zarr, which needs the package zarr: pip install zarr, or use TIFF"
        ) from error

    store: Any = zarr.open(str(path), mode="r")
    inside = name.strip("/")
    if isinstance(store, zarr.Array):
        if inside:
            raise InputError(f"{path.name} is one array: write it without ':{name}'")
        return np.asarray(store)
    # Arrays at the top are listed; one farther down can be named.
    array = store.get(inside) if inside else None
    if not isinstance(array, zarr.Array):
        array = store[_one_of([key for key, _ in store.arrays()], name, path)]
    return np.asarray(array)


def _read_numpy(path: Path, name: str) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    with np.load(path, allow_pickle=False) as file:
        array: NDArray[Any] = file[_one_of(list(file.files), name, path)]
    return array


def _one_of(names: list[str], wanted: str, path: Path) -> str:
    if not wanted and len(names) == 1:
        return names[0]
    if wanted and wanted.strip("/") in names:
        return wanted.strip("/")
    listed = ", ".join(names) or "none"
    problem = "was given without a dataset" if not wanted else f"has no dataset '{wanted}'"
    raise InputError(
        f"{path.name} {problem}, it holds: {listed}; write {path.name}:NAME with one of them"
    )
