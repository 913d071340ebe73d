from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("pydantic", reason="pydantic is not installed")

from cellrt.errors import InputError
from cellrt.training.data.pairs import find_pairs, read_stack
from cellrt.training.recipe import DataTable

VOLUME = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


def test_every_format_gives_the_same_array(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    tifffile.imwrite(tmp_path / "v.tif", VOLUME)
    np.save(tmp_path / "v.npy", VOLUME[None])
    np.savez(tmp_path / "v.npz", arr_0=VOLUME)
    with h5py.File(tmp_path / "v.h5", "w") as store:
        store["group/raw"] = VOLUME
    zarr.save_array(str(tmp_path / "v.zarr"), VOLUME)
    for name in ("v.tif", "v.npy", "v.npz:arr_0", "v.h5:group/raw", "v.zarr"):
        np.testing.assert_array_equal(read_stack(str(tmp_path / name)), VOLUME)


def test_pairs_are_sorted_excluded_and_checked(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        (tmp_path / f"{name}.tif").touch()
        (tmp_path / f"{name}.lab").touch()
    table = DataTable(name="d", images="*.tif", labels="*.lab", exclude=("b.",))
    names = [(Path(str(i)).name, Path(j).name) for i, j in find_pairs(table, tmp_path)]
    assert names == [("a.tif", "a.lab"), ("c.tif", "c.lab")]
    (tmp_path / "c.lab").unlink()
    with pytest.raises(InputError, match="2 images but 1 label"):
        find_pairs(table, tmp_path)
    with pytest.raises(InputError, match="matches no file"):
        find_pairs(DataTable(name="d", images="*.x", labels="*.y"), tmp_path)


def test_paths_may_lead_out_of_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "v.tif").touch()
    table = DataTable(name="d", images="../v.tif", labels="../v.tif")
    assert len(find_pairs(table, tmp_path / "recipes")) == 1


def test_unreadable_files_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"not a tiff")
    np.save(tmp_path / "line.npy", VOLUME[0, 0])
    for name in ("broken.tif", "missing.npy", "line.npy"):
        with pytest.raises(InputError, match=name):
            read_stack(str(tmp_path / name))


def test_an_image_is_a_stack_of_one_slice(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", VOLUME[0])
    np.testing.assert_array_equal(read_stack(str(tmp_path / "flat.npy")), VOLUME[:1])


def test_compressed_labels_are_read(tmp_path: Path) -> None:
    from PIL import Image

    planes = [np.full((8, 9), z, np.uint16) for z in range(3)]
    first, *others = (Image.fromarray(plane) for plane in planes)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression="tiff_lzw")
    np.testing.assert_array_equal(read_stack(str(tmp_path / "a.tif")), np.stack(planes))
