"""OME-Zarr images: full resolution, axes, voxel size and channels as their metadata say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellrt.errors import InputError
from cellrt.runtime.image.reading import read_volume

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 writes both versions")

FULL = np.arange(2 * 6 * 16 * 20, dtype=np.uint16).reshape(2, 6, 16, 20)
SPACE = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "nanometer"},
]


def level(path: str, *scale: float) -> dict[str, Any]:
    return {"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}


def write(folder: Path, version: str, name: str = "", axes: Any = SPACE, **more: Any) -> Path:
    """An image of two resolutions in a group."""
    group = zarr.open_group(str(folder), mode="a", zarr_format=3 if version == "0.5" else 2)
    group = group.require_group(name) if name else group
    image = {
        "version": version,
        "axes": axes,
        "datasets": [level("s0", 1, 2, 400, 400), level("s1", 1, 2, 800, 800)],
        **more,
    }
    described = {"multiscales": [image], "omero": {"channels": [{"label": "a"}, {"label": "561"}]}}
    group.attrs.update({"ome": described} if version == "0.5" else described)
    for path, array in (("s0", FULL), ("s1", FULL[..., ::2, ::2])):
        group.create_array(path, shape=array.shape, chunks=(1, 3, 8, 8), dtype=array.dtype)[:] = (
            array
        )
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_store_means_the_full_resolution(tmp_path: Path, version: str) -> None:
    store = write(tmp_path / "v.zarr", version)
    volume = read_volume(store, channel="561")
    assert volume.file_axes == "CZYX"
    assert volume.channel_names == ("a", "561")
    assert volume.voxel_size_um == pytest.approx((2.0, 0.4, 0.4))
    assert "OME-Zarr" in str(volume.voxel_size_source)
    np.testing.assert_array_equal(volume.image[:], FULL[1])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("address", ["v.zarr:s1", "v.zarr/s1"])
def test_another_resolution_has_its_own_size(tmp_path: Path, version: str, address: str) -> None:
    write(tmp_path / "v.zarr", version)
    volume = read_volume(f"{tmp_path}/{address}", channel=1)
    assert volume.shape == (6, 8, 10)
    assert volume.voxel_size_um == pytest.approx((2.0, 0.8, 0.8))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_in_a_store_are_named_by_their_group(tmp_path: Path, version: str) -> None:
    store = write(tmp_path / "p.zarr", version, "0")
    assert read_volume(store, channel=1).shape == (6, 16, 20)
    write(store, version, "well/field")
    volume = read_volume(f"{store}:well/field", channel=2)
    assert volume.voxel_size_um == pytest.approx((2.0, 0.4, 0.4))
    assert read_volume(f"{store}:well/field/s1", channel=2).shape == (6, 8, 10)
    write(store, version, "1")
    with pytest.raises(InputError, match=r"it holds: 0, 1; write p\.zarr:NAME"):
        read_volume(store)


def test_a_scale_of_the_whole_image_multiplies(tmp_path: Path) -> None:
    whole = [{"type": "scale", "scale": [1, 0.5, 0.5, 0.5]}]
    store = write(tmp_path / "v.zarr", "0.4", coordinateTransformations=whole)
    assert read_volume(store, channel=1).voxel_size_um == pytest.approx((1.0, 0.2, 0.2))


@pytest.mark.parametrize("axes", [["c", "z", "y", "x"], [{"name": n} for n in "czyx"]])
def test_a_scale_without_a_unit_is_no_size(tmp_path: Path, axes: Any) -> None:
    volume = read_volume(write(tmp_path / "v.zarr", "0.4", axes=axes), channel=1)
    assert volume.file_axes == "CZYX"
    assert volume.voxel_size_um is None
    assert "no unit" in str(volume.voxel_size_source)


@pytest.mark.parametrize(
    "broken", [{"datasets": []}, {"datasets": [{}]}, {"axes": [7]}, {"axes": 3}]
)
def test_metadata_that_make_no_sense_are_left_aside(tmp_path: Path, broken: Any) -> None:
    store = write(tmp_path / "v.zarr", "0.5", **broken)
    with pytest.raises(InputError, match="it holds: s0, s1"):
        read_volume(store)


def test_a_level_that_is_missing_is_a_damaged_store(tmp_path: Path) -> None:
    gone = [level("gone", 1, 1, 1, 1)]
    with pytest.raises(InputError, match="damaged"):
        read_volume(write(tmp_path / "v.zarr", "0.5", datasets=gone))
