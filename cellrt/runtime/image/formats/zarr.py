"""Arrays of Zarr stores, versions 2 and 3, and OME-Zarr images, read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellrt.errors import InputError
from cellrt.limits import usable_cores
from cellrt.runtime.image.axes import axes_from_names
from cellrt.runtime.image.formats.damage import damaged
from cellrt.runtime.image.formats.inside import choose_array, size_from_attributes
from cellrt.runtime.image.formats.ome_zarr import Multiscale, multiscale_of
from cellrt.runtime.image.stored import Stored

_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def read(path: Path, inside: str) -> Stored:
    """Open the array named ``inside``, or the only one at the top of the store.

    Of an OME-Zarr image, or a group of that name that is one, the full resolution; its metadata say
    axes, voxel size and channels. Otherwise axes come from the names of the array's dimensions
    where it has any, the voxel size from its attribute ``element_size_um`` (z, y, x).

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
        array, image, level = _find(zarr, store, inside.strip("/"), path)
        attributes = dict(array.attrs)
        names = _dimension_names(array, attributes)
        named = axes_from_names(names) if len(names) == len(array.shape) else None
    except _DAMAGE as error:
        raise damaged(path.name, str(error)) from error
    if image is None or len(image.axes) != len(array.shape):
        return Stored(
            array,
            axes=named,
            axes_text="names of the array's dimensions",
            size=size_from_attributes(attributes),
            chunks=tuple(array.chunks),
        )
    return Stored(
        array,
        axes=image.axes,
        axes_text="OME-Zarr metadata",
        size=image.sizes[level],
        channel_names=image.channel_names or None,
        chunks=tuple(array.chunks),
    )


def _find(zarr: Any, store: Any, name: str, path: Path) -> tuple[Any, Multiscale | None, str]:
    """The array of a name, the image that it is a resolution of, and its path in that image."""
    if isinstance(store, zarr.Array):
        if name:
            raise InputError(f"{path.name} is one array: write it without ':{name}'")
        return store, *_image_of_folder(zarr, path)
    item = store.get(name) if name else store
    if not isinstance(item, zarr.Array) and (item is None or multiscale_of(item.attrs) is None):
        # Arrays and images at the top are listed; one farther down can be named.
        images = [key for key, group in store.groups() if multiscale_of(group.attrs) is not None]
        name = choose_array(sorted([*(key for key, _ in store.arrays()), *images]), name, path.name)
        item = store[name]
    if not isinstance(item, zarr.Array):
        image = multiscale_of(item.attrs)
        assert image is not None
        return item[image.full], image, image.full
    parts = name.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        above = store["/".join(parts[:depth])] if depth else store
        image, level = multiscale_of(above.attrs), "/".join(parts[depth:])
        if image is not None and level in image.sizes:
            return item, image, level
    return item, None, ""


def _image_of_folder(zarr: Any, path: Path) -> tuple[Multiscale | None, str]:
    """The image that an array is a resolution of, where it was named by its own folder."""
    try:
        image = multiscale_of(zarr.open_group(str(path.parent), mode="r").attrs)
    except _DAMAGE:
        return None, ""
    return (image, path.name) if image is not None and path.name in image.sizes else (None, "")


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
