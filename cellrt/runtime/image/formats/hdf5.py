"""Datasets of HDF5 files, read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrt.errors import InputError
from cellrt.runtime.image.axes import axes_from_names
from cellrt.runtime.image.formats.damage import damaged
from cellrt.runtime.image.formats.inside import choose_array, size_from_attributes
from cellrt.runtime.image.stored import Stored


def read(path: Path, inside: str) -> Stored:
    """Open the dataset named ``inside``, or the only one; the file stays open while it is used.

    Axes come from the labels of the dataset's dimensions where it has any, the voxel size from its
    attribute ``element_size_um`` (z, y, x).

    Raises
    ------
    InputError
        A damaged file, several datasets and none named, no dataset of that name.
    ModuleNotFoundError
        h5py is not installed.
    """
    import h5py

    names: list[str] = []

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    try:
        file = h5py.File(path, "r")
        file.visititems(collect)
        # Links are not visited, and a name may be one.
        if inside and isinstance(file.get(inside), h5py.Dataset):
            names.append(inside.strip("/"))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise damaged(path.name, str(error)) from error
    name = choose_array(names, inside, path.name)
    try:
        dataset: Any = file[name]
        labels = [dimension.label for dimension in dataset.dims]
        attributes = dict(dataset.attrs)
        chunks = dataset.chunks
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise damaged(path.name, str(error)) from error
    if dataset.shape is None:
        raise InputError(f"{path.name}: the dataset {name} has no values; expected an image")
    return Stored(
        _Dataset(file, dataset),
        axes=axes_from_names(labels) if any(labels) else None,
        axes_text="labels of the dataset's dimensions",
        size=size_from_attributes(attributes),
        chunks=chunks,
    )


class _Dataset:
    """A dataset that keeps its file open."""

    def __init__(self, file: Any, dataset: Any) -> None:
        self._file = file
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self.dtype = dataset.dtype

    def __getitem__(self, index: Any) -> Any:
        return self._dataset[index]
