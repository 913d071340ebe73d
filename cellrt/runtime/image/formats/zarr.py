"""Arrays of Zarr stores, versions 2 and 3, read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrt.errors import InputError
from cellrt.limits import usable_cores
from cellrt.runtime.image.axes import axes_from_names
from cellrt.runtime.image.formats.damage import damaged
from cellrt.runtime.image.formats.inside import choose_array, size_from_attributes
from cellrt.runtime.image.stored import Stored

_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def read(path: Path, inside: str) -> Stored:
    """Open the array named ``inside``, or the only one at the top of the store.

    Axes come from the names of the array's dimensions where it has any, the voxel size from its
    attribute ``element_size_um`` (z, y, x).

    Raises
    ------
    InputError
        A damaged store, several arrays and none named, no array of that name.
    ModuleNotFoundError
        zarr is not installed.
    """
    import zarr

    _use_few_threads(zarr)
    try:
        store: Any = zarr.open(str(path), mode="r")
    except _DAMAGE as error:
        raise damaged(path.name, str(error)) from error
    name = inside.strip("/")
    array: Any = store
    if isinstance(store, zarr.Array):
        if name:
            raise InputError(f"{path.name} is one array: write it without ':{inside}'")
    else:
        # Arrays at the top are listed; one farther down can be named.
        try:
            array = store.get(name) if name else None
            names = sorted(key for key, _ in store.arrays())
        except _DAMAGE as error:
            raise damaged(path.name, str(error)) from error
        if not isinstance(array, zarr.Array):
            array = store[choose_array(names, inside, path.name)]
    attributes = dict(array.attrs)
    names = _dimension_names(array, attributes)
    return Stored(
        array,
        axes=axes_from_names(names) if len(names) == len(array.shape) else None,
        axes_text="names of the array's dimensions",
        size=size_from_attributes(attributes),
        chunks=tuple(array.chunks),
    )


def _dimension_names(array: Any, attributes: dict[str, Any]) -> list[str | None]:
    """Names as Zarr 3 has them, or as xarray writes them into Zarr 2; empty for none."""
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    names = names or attributes.get("_ARRAY_DIMENSIONS") or []
    return list(names) if isinstance(names, (list, tuple)) and any(names) else []


def _use_few_threads(zarr: Any) -> None:
    """Let Zarr unpack chunks on the cores there are, unless somebody said otherwise.

    By itself it takes four threads more than the machine has cores, whatever a container allows;
    each holds an unpacked chunk, and leaves its share of memory behind.
    """
    config = getattr(zarr, "config", None)  # from version 3 on
    if config is not None and config.get("threading.max_workers", None) is None:
        cores = usable_cores().number
        config.set({"threading.max_workers": cores, "async.concurrency": cores})
