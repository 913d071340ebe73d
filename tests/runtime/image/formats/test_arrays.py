"""Arrays inside files, and how they are addressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellrt.errors import InputError
from cellrt.runtime.image.formats.arrays import read_array, read_labels, split_address

LABELS = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


def test_addresses_split_into_file_and_dataset() -> None:
    assert split_address("a/b.h5:raw") == ("a/b.h5", "raw")
    assert split_address("a/b.zarr:0/raw") == ("a/b.zarr", "0/raw")
    assert split_address("a/b.tif") == ("a/b.tif", "")


def test_zarr_stores_are_read_like_hdf5(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    group = zarr.open_group(str(tmp_path / "v.zarr"), mode="w")
    group["raw"] = LABELS
    np.testing.assert_array_equal(read_labels(tmp_path / "v.zarr"), LABELS)
    group["deep/truth"] = LABELS + 1
    np.testing.assert_array_equal(read_labels(tmp_path / "v.zarr"), LABELS)
    np.testing.assert_array_equal(read_array(f"{tmp_path / 'v.zarr'}:deep/truth"), LABELS + 1)
    for name in ("lost", "deep"):
        with pytest.raises(InputError, match=f"no dataset '{name}', it holds: raw"):
            read_labels(f"{tmp_path / 'v.zarr'}:{name}")
    zarr.save_array(str(tmp_path / "one.zarr"), LABELS)
    with pytest.raises(InputError, match=r"one\.zarr is one array"):
        read_labels(f"{tmp_path / 'one.zarr'}:raw")


def test_an_array_of_several_has_to_be_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", raw=LABELS, truth=LABELS + 1)
    np.testing.assert_array_equal(read_array(tmp_path / "v.npz:truth"), LABELS + 1)
    with pytest.raises(InputError, match=r"it holds: raw, truth; write v\.npz:NAME"):
        read_array(tmp_path / "v.npz")
    with pytest.raises(InputError, match="does not exist"):
        read_array(tmp_path / "lost.npz:raw")
