"""One reader for every format: how arrays inside files are addressed, and formats from outside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import cellrt
from cellrt.errors import InputError, ResourceError
from cellrt.runtime.image import formats
from cellrt.runtime.image.formats import parse_address, register_format, split_address
from cellrt.runtime.image.reading import read_array, read_volume
from cellrt.runtime.image.stored import StatedSize, Stored
from cellrt.runtime.image.volume import volume_from_array

STACK = np.random.default_rng(0).integers(0, 60_000, (12, 20, 24)).astype(np.uint16)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats registered in a test are gone after it."""
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))


def write(path: Path, array: np.ndarray, name: str = "raw", **options: Any) -> str:
    """Write one array as the ending says and return its address."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **{name: array})
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(path, "a") as file:
            file.create_dataset(name, data=array, **options)
    elif path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr", reason="zarr is not installed")
        zarr.open_group(str(path), mode="a")[name] = array
    else:
        tifffile.imwrite(path, array, metadata={"axes": "ZYX"})
    return f"{path}:{name}" if path.suffix in (".npz", ".h5", ".zarr") else str(path)


ENDINGS = [".tif", ".npy", ".npz", ".h5", ".zarr"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_volume(tmp_path: Path, ending: str) -> None:
    address = write(tmp_path / f"v{ending}", STACK)
    volume = read_volume(address, voxel_size_um=(2, 1, 1))
    np.testing.assert_array_equal(volume.image[:], STACK)
    np.testing.assert_array_equal(volume.image[3, 2:9:3], STACK[3, 2:9:3])
    np.testing.assert_array_equal(read_array(address), STACK)
    assert volume.path == tmp_path / f"v{ending}"
    assert volume.address == address
    assert volume.file_axes == "ZYX"
    assert volume.nbytes_resident == (STACK.nbytes if ending == ".npz" else 0)
    # Where a file holds one array its name can be left out.
    np.testing.assert_array_equal(read_volume(volume.path or "").image[:], STACK)


@pytest.mark.parametrize("ending", ENDINGS)
def test_channels_and_time_are_chosen_in_every_format(tmp_path: Path, ending: str) -> None:
    movie = STACK.reshape(2, 2, 3, 20, 24)
    if ending == ".tif":
        address = str(tmp_path / "v.tif")
        tifffile.imwrite(address, movie, metadata={"axes": "TCZYX"}, photometric="minisblack")
    else:
        address = write(tmp_path / f"v{ending}", movie)
    volume = read_volume(address, axes="TCZYX", channel=2, time=1)
    np.testing.assert_array_equal(volume.image[:], movie[0, 1])
    np.testing.assert_array_equal(volume.channel(1)[:], movie[0, 0])
    with pytest.raises(InputError, match=r"2 channels .* choose one with channel 1 to channel 2"):
        read_volume(address, axes="TCZYX", time=1)
    if ending != ".tif":
        with pytest.raises(InputError, match="say it with axes, for example axes TCZYX"):
            read_volume(address)


@pytest.mark.parametrize("ending", [".npz", ".h5", ".zarr"])
def test_an_array_of_several_has_to_be_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v{ending}"
    if ending == ".npz":
        np.savez(path, raw=STACK, truth=STACK + 1)
    else:
        write(path, STACK)
        write(path, STACK + 1, "truth")
    np.testing.assert_array_equal(read_array(f"{path}:truth"), STACK + 1)
    np.testing.assert_array_equal(read_array(f"{path}:/truth"), STACK + 1)
    np.testing.assert_array_equal(read_volume(path, series="truth").image[:], STACK + 1)
    with pytest.raises(InputError, match=rf"it holds: raw, truth; write v\{ending}:NAME"):
        read_volume(path)
    with pytest.raises(InputError, match="no dataset 'lost'"):
        read_volume(f"{path}:lost")
    with pytest.raises(InputError, match="does not exist"):
        read_volume(tmp_path / f"lost{ending}:raw")


@pytest.mark.parametrize("ending", [".h5", ".zarr"])
def test_arrays_in_groups_are_named_by_their_path(tmp_path: Path, ending: str) -> None:
    address = write(tmp_path / f"v{ending}", STACK, "volumes/raw")
    assert address.endswith(":volumes/raw")
    np.testing.assert_array_equal(read_volume(address).image[:], STACK)
    with pytest.raises(InputError, match="no dataset 'volumes'"):
        read_volume(address.removesuffix("/raw"))


def test_a_zarr_store_may_be_one_array_and_a_folder_inside_one(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    zarr.save_array(str(tmp_path / "one.zarr"), STACK)
    np.testing.assert_array_equal(read_volume(tmp_path / "one.zarr").image[:], STACK)
    with pytest.raises(InputError, match=r"one\.zarr is one array"):
        read_volume(f"{tmp_path / 'one.zarr'}:raw")
    write(tmp_path / "v.zarr", STACK)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr" / "raw").image[:], STACK)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_versions_says_its_axes_and_size(tmp_path: Path, version: int) -> None:
    zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 writes both")
    group = zarr.open_group(str(tmp_path / "v.zarr"), mode="w", zarr_format=version)
    names = ["z", "channel", "y", "x"]
    array = group.create_array(
        "raw",
        data=STACK.reshape(6, 2, 20, 24),
        chunks=(2, 1, 20, 24),
        **({"dimension_names": names} if version == 3 else {}),
    )
    array.attrs["element_size_um"] = [2.0, 0.5, 0.5]
    if version == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = names
    volume = read_volume(tmp_path / "v.zarr", channel=2)
    assert volume.file_axes == "ZCYX"
    assert volume.axes_source.origin == "file"
    assert volume.voxel_size_um == (2.0, 0.5, 0.5)
    assert volume.image.chunks == (2, 20, 24)
    np.testing.assert_array_equal(volume.image[:], STACK[1::2])


@pytest.mark.parametrize(
    ("size", "expected", "words"),
    [
        ([2.0, 0.5, 0.25], (2.0, 0.5, 0.25), "attribute element_size_um"),
        ([-2.0, 0.5, 0.5], (2.0, 0.5, 0.5), "attribute element_size_um"),
        ([1.0, 1.0, 1.0], None, "exactly 1 µm"),
        ([0.5, 0.5], None, "not three numbers"),
        ("small", None, "not three numbers"),
        (None, None, "no voxel size"),
    ],
)
def test_hdf5_states_its_voxel_size_in_an_attribute(
    tmp_path: Path, size: Any, expected: Any, words: str
) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = STACK
        if size is not None:
            file["raw"].attrs["element_size_um"] = size
    volume = read_volume(tmp_path / "v.h5")
    assert volume.voxel_size_um == expected
    assert words in volume.voxel_size_source.text


def test_hdf5_says_its_axes_in_labels_of_dimensions(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = STACK.reshape(6, 2, 20, 24)
        for dimension, label in zip(file["raw"].dims, "zcyx", strict=True):
            dimension.label = label
    np.testing.assert_array_equal(read_volume(tmp_path / "v.h5", channel=1).image[:], STACK[::2])


def test_hdf5_behind_a_user_block_and_under_another_name(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "v.ims", "w", userblock_size=512) as file:
        file["raw"] = STACK
    np.testing.assert_array_equal(read_volume(tmp_path / "v.ims").image[:], STACK)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".zarr"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files_are_never_read_as_if_whole(
    tmp_path: Path, ending: str, share: float
) -> None:
    if ending == ".zarr":
        pytest.importorskip("zarr", minversion="3", reason="codecs of Zarr 2 notice nothing")
    path = tmp_path / f"v{ending}"
    write(path, STACK)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: int(share * largest.stat().st_size)])
    with pytest.raises(InputError, match=r"damaged") as caught:
        read_volume(path).image[:]
    assert "\n" not in str(caught.value)


def test_files_of_no_or_another_format_are_told_apart(tmp_path: Path) -> None:
    for name, words in {
        "a.tif": "is no TIFF file",
        "a.npy": "is no NumPy file",
        "a.h5": "is no HDF5 file",
        "a.png": "is no PNG file",
        "a.dat": "of no format that is known; expected TIFF, NumPy, NPZ, HDF5, Zarr",
    }.items():
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(InputError, match=words):
            read_volume(tmp_path / name)
    with pytest.raises(InputError, match="is a folder"):
        read_volume(tmp_path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"empty\.zarr"):
        read_volume(tmp_path / "empty.zarr")
    # TIFF by any other name is one.
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    (tmp_path / "a.tif").rename(tmp_path / "a.microscope")
    assert read_volume(tmp_path / "a.microscope").shape == STACK.shape


@pytest.mark.parametrize(
    ("ending", "package", "install"),
    [(".h5", "h5py", r"cellrt\[hdf5\]"), (".zarr", "zarr", r"cellrt\[zarr\]")],
)
def test_a_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, package: str, install: str
) -> None:
    address = write(tmp_path / f"v{ending}", STACK)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs the package {package}; .* '{install}'"):
        read_volume(address)


def test_addresses_split_into_file_and_dataset(tmp_path: Path) -> None:
    assert split_address("a/b.h5:raw") == ("a/b.h5", "raw")
    assert split_address("a/b.zarr:0/raw") == ("a/b.zarr", "0/raw")
    assert split_address("a/b.H5:/raw/") == ("a/b.H5", "raw")
    assert split_address("a/b.tif") == ("a/b.tif", "")
    assert split_address("a/b.tif:2") == ("a/b.tif", "2")
    assert split_address("a/b.npy:raw") == ("a/b.npy:raw", "")
    # A file that is called like that is that file.
    odd = tmp_path / "b.h5:raw.tif"
    tifffile.imwrite(odd, STACK)
    assert parse_address(odd) == (odd, "")
    assert read_volume(odd).shape == STACK.shape


def test_a_link_in_an_hdf5_file_is_followed_by_name(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/raw"] = STACK
        file["link"] = h5py.SoftLink("/deep/raw")
    np.testing.assert_array_equal(read_array(f"{tmp_path / 'a.h5'}:link"), STACK)
    with pytest.raises(InputError, match="no dataset 'lost'"):
        read_array(f"{tmp_path / 'a.h5'}:lost")


def test_axes_that_a_file_names_twice_are_asked_for(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = STACK
        for dimension, name in zip(file["raw"].dims, "zzx", strict=True):
            dimension.label = name
    with pytest.raises(InputError, match="one name to several axes"):
        read_volume(tmp_path / "a.h5")
    assert read_volume(tmp_path / "a.h5", axes="ZYX").shape == STACK.shape


# Formats from outside the package


def read_toy(path: Path, inside: str) -> Stored:
    """Read a text file of numbers, one slice a line, voxel sizes in the first."""
    sizes, *lines = path.read_text(encoding="utf-8").splitlines()[1:]
    edge = int(sizes.split()[0])
    planes = np.array([[float(value) for value in line.split()] for line in lines])
    z, y, x = (float(size) for size in sizes.split()[1:])
    return Stored(
        planes.reshape(-1, edge, edge),
        axes="ZYX",
        axes_text="the toy's own rule",
        size=StatedSize((z, y, x), "first line"),
        warnings=("a toy was read",),
    )


def write_toy(path: Path) -> None:
    lines = ["toy", "9 2.0 0.5 0.5", *["1 " * 81] * 4]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.usefixtures("registry")
def test_a_format_from_outside_is_segmented(tmp_path: Path) -> None:
    register_format("toy", [".toy"], read_toy, starts_with=[b"toy"])
    write_toy(tmp_path / "a.toy")
    result = cellrt.segment(tmp_path / "a.toy", engine="openvino")
    assert result.labels.shape == (4, 9, 9)
    assert result.record["input"]["voxel_size_um"] == [2.0, 0.5, 0.5]
    assert result.record["input"]["axes_source"] == "file: the toy's own rule"
    assert "a toy was read" in result.warnings
    # Its first bytes are enough.
    (tmp_path / "a.toy").rename(tmp_path / "a.dat")
    assert read_array(tmp_path / "a.dat").shape == (4, 9, 9)


@pytest.mark.usefixtures("registry")
def test_a_format_is_imported_when_a_file_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_format("toy", [".toy"], "toy_of_this_test:read", needs="toy_of_this_test")
    write_toy(tmp_path / "a.toy")
    with pytest.raises(InputError, match="install it with: pip install toy_of_this_test"):
        read_volume(tmp_path / "a.toy")
    (tmp_path / "toy_of_this_test.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        read_volume(tmp_path / "a.toy")


@pytest.mark.usefixtures("registry")
def test_what_a_reader_raises_is_not_hidden(tmp_path: Path) -> None:
    def broken(path: Path, inside: str) -> Stored:
        raise ZeroDivisionError("a mistake of the reader")

    def greedy(path: Path, inside: str) -> Stored:
        raise MemoryError("9 TB")

    for ending, reader, error in (
        (".t1", broken, ZeroDivisionError),
        (".t2", greedy, ResourceError),
    ):
        register_format(ending, [ending], reader)
        (tmp_path / f"a{ending}").write_text("x")
        with pytest.raises(error):
            read_volume(tmp_path / f"a{ending}")


@pytest.mark.usefixtures("registry")
def test_a_format_takes_no_other_formats_name_or_ending() -> None:
    for name, ending in (("toy", ".TIF"), ("TIFF", ".toy")):
        with pytest.raises(ValueError, match="registered already"):
            register_format(name, [ending], read_toy)


def no_numbers():
    """Arrays whose values are no numbers, and what they are called."""
    objects = np.empty((3, 4, 5), object)
    objects[:] = 1
    return [
        (objects, "Python objects"),
        (np.full((3, 4, 5), "a"), "text"),
        (np.full((3, 4, 5), b"a"), "text"),
        (np.zeros((3, 4, 5), [("red", "u1"), ("green", "u1")]), "records with the fields red, gr"),
        (np.zeros((3, 4, 5), "M8[s]"), "dates or times"),
    ]


@pytest.mark.parametrize("read", [read_volume, read_array])
@pytest.mark.parametrize(("array", "kind"), no_numbers())
def test_what_is_no_number_is_called_what_it_is(tmp_path, read, array, kind):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", a=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=f"{name}: holds {kind}.*; expected numbers"):
            read(tmp_path / name)
    with pytest.raises(InputError, match=f"array: holds {kind}.*; expected numbers"):
        volume_from_array(array)


@pytest.mark.parametrize("read", [read_volume, read_array])
def test_hdf5_and_zarr_hold_more_than_numbers(tmp_path, read):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    kinds = {
        "text": h5py.string_dtype(),
        "lists of values": h5py.vlen_dtype("i4"),
        "references": h5py.ref_dtype,
        "records with the fields a, b": np.dtype([("a", "u1"), ("b", "f4")]),
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, dtype in kinds.items():
            file.create_dataset(name, (3, 4, 5), dtype=dtype)
        file["nothing"] = h5py.Empty("f4")
    for name in kinds:
        with pytest.raises(InputError, match=f"holds {name}; expected numbers"):
            read(f"{tmp_path}/a.h5:{name}")
    with pytest.raises(InputError, match="has no values"):
        read(f"{tmp_path}/a.h5:nothing")
    zarr.open(str(tmp_path / "a.zarr"), mode="w", shape=(3, 4, 5), dtype="U2")
    with pytest.raises(InputError, match=r"a\.zarr: holds text; expected numbers"):
        read(tmp_path / "a.zarr")
