"""Voxels read box by box: the same as of an array, wherever they lie, and never more than asked."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.errors import InputError
from cellrt.runtime.image import file_sources
from cellrt.runtime.image.file_sources import LazySource, make_source
from cellrt.runtime.image.source import ArraySource, VoxelSource, as_box, is_memory_map
from cellrt.runtime.image.volume import volume_from_array


class Stored:
    """An array in a file: it counts the voxels that are fetched, and takes no steps."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.fetched: list[int] = []

    def __getitem__(self, index: Any) -> np.ndarray:
        assert all(isinstance(i, int) or i.step in (None, 1) for i in index)
        part = self.values[index]
        self.fetched.append(part.size)
        return part.copy()


@st.composite
def indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    parts: list[Any] = []
    for length in shape[: draw(st.integers(0, 3))]:
        if draw(st.booleans()):
            parts.append(draw(st.integers(-length, length - 1)))
        else:
            ends = st.none() | st.integers(-length - 2, length + 2)
            parts.append(slice(draw(ends), draw(ends), draw(st.none() | st.integers(1, 4))))
    if len(parts) < 3 and draw(st.booleans()):
        parts.append(Ellipsis)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@settings(max_examples=300)
@given(
    data=st.data(),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    chunks=st.none() | st.tuples(*[st.integers(1, 5)] * 3),
    order=st.permutations("TCZYX"),
    held=st.integers(1, 400),
)
def test_every_index_reads_what_it_reads_of_an_array(
    data: st.DataObject,
    shape: tuple[int, int, int],
    chunks: tuple[int, int, int] | None,
    order: list[str],
    held: int,
) -> None:
    lengths = {"T": 2, "C": 3, **dict(zip("ZYX", shape, strict=True))}
    letters = "".join(order)
    values = np.arange(np.prod(shape) * 6, dtype=np.uint16).reshape([lengths[a] for a in letters])
    expected = np.moveaxis(values, [letters.index(a) for a in "TCZYX"], range(5))[1, 2]
    chunk_of = {"T": 1, "C": 1, **dict(zip("ZYX", chunks or shape, strict=True))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_sources, "SLAB_BYTES", held)
        patch.setattr(file_sources, "STRIDED_BYTES", held)
        lazy = LazySource(
            Stored(values),
            letters,
            channel=2,
            time=1,
            chunks=tuple(chunk_of[a] for a in letters) if chunks else None,
        )
        index = data.draw(indices(shape))
        for source in (lazy, ArraySource(values, letters, channel=2, time=1)):
            assert isinstance(source, VoxelSource)
            assert (source.shape, source.dtype) == (shape, np.uint16)
            np.testing.assert_array_equal(source[index], expected[index])
            np.testing.assert_array_equal(np.stack(list(source)), expected)


@pytest.mark.parametrize(
    "index", [5, (0, 9), (0, 0, -7), (0, 0, 0, 0), [1, 2], np.ones((4, 5, 6), bool), True, 1.0]
)
def test_other_indices_are_refused(index: Any) -> None:
    with pytest.raises(IndexError):
        ArraySource(np.zeros((4, 5, 6)), "ZYX")[index]
    with pytest.raises(IndexError, match="at least 1"):
        as_box(slice(None, None, -1), (4, 5, 6))


def test_a_source_never_becomes_an_array_by_accident() -> None:
    source = ArraySource(np.zeros((4, 5, 6)), "ZYX")
    for function in (np.asarray, np.mean, np.percentile):
        with pytest.raises(TypeError, match="read a box of it"):
            function(source, 50) if function is np.percentile else function(source)


def test_a_box_is_all_that_is_fetched() -> None:
    stored = Stored(np.zeros((64, 4, 64, 64), np.uint8))
    source = LazySource(stored, "ZCYX", channel=1, chunks=(1, 1, 64, 64))
    assert source.read((slice(2, 5), slice(0, 10), slice(60, 64))).shape == (3, 10, 4)
    assert stored.fetched == [3 * 10 * 4]


def test_walking_along_z_fetches_each_chunk_once() -> None:
    stored = Stored(np.zeros((64, 64, 64), np.uint8))
    source = LazySource(stored, "ZYX", chunks=(16, 32, 32))
    threads = [threading.Thread(target=lambda z=z: source[z]) for z in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(stored.fetched) == 16 * 64 * 64
    assert sum(plane.size for plane in source) == 64**3
    assert sum(stored.fetched) <= 64**3 + 16 * 64 * 64


def test_what_is_held_of_deep_chunks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sources, "SLAB_BYTES", 5 * 64 * 64)
    stored = Stored(np.zeros((64, 64, 64), np.uint8))
    for _ in LazySource(stored, "ZYX", chunks=(64, 64, 64)):
        pass
    assert max(stored.fetched) <= 5 * 64 * 64


def test_slabs_are_shared_but_not_mixed_up_between_channels() -> None:
    values = np.arange(2 * 8 * 4 * 4, dtype=np.uint16).reshape(2, 8, 4, 4)
    volume = volume_from_array(Chunked(values), axes="CZYX", channel=1)
    for first, second in zip(*volume.channels, strict=True):
        assert (second - first == 128).all()


class Chunked(Stored):
    """As Dask has it: the lengths of all chunks."""

    chunks = ((1, 1), (4, 4), (4,), (4,))


def test_slabs_cannot_be_written_to() -> None:
    source = LazySource(Stored(np.zeros((8, 4, 4))), "ZYX", chunks=(4, 4, 4))
    with pytest.raises(ValueError, match="read-only"):
        source[1][0, 0] = 1


def test_memory_counts_what_stays_in_memory(tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert is_memory_map(mapped[1:])
    assert not is_memory_map(array[1:])
    assert make_source(array, "ZYX").nbytes_resident == array.nbytes
    assert make_source(mapped, "ZYX").nbytes_resident == 0
    assert make_source(Stored(array), "ZYX").nbytes_resident == 0
    assert volume_from_array(mapped[:, ::2]).nbytes_resident == 0
    volume = volume_from_array(np.zeros((2, 4, 5, 6)), axes="CZYX", channel=1)
    assert volume.nbytes_resident == volume.nbytes == 2 * 4 * 5 * 6 * 8


def test_voxels_that_cannot_be_fetched_are_one_line() -> None:
    class Damaged(Stored):
        def __getitem__(self, index: Any) -> np.ndarray:
            raise OSError("codec failed\nfor a chunk")

    source = make_source(Damaged(np.zeros((4, 5, 6))), "ZYX", where="a.h5")
    with pytest.raises(InputError, match=r"a\.h5: voxels cannot be read \(codec failed for") as got:
        source[0]
    assert "\n" not in str(got.value)


def test_mistakes_in_an_index_are_not_blamed_on_the_file() -> None:
    with pytest.raises(IndexError):
        LazySource(Stored(np.zeros((4, 5, 6))), "ZYX")[4]


def test_lists_and_arrays_of_other_libraries_are_described() -> None:
    assert volume_from_array([[1, 2], [3, 4]]).shape == (1, 2, 2)
    dask = pytest.importorskip("dask.array", reason="dask is not installed")
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    volume = volume_from_array(dask.from_array(values, chunks=(2, 5, 3)))
    assert volume.nbytes_resident == 0
    np.testing.assert_array_equal(volume.image[1:, 2], values[1:, 2])


# Memory


def mapped_memory() -> int:
    """Bytes of files that are mapped into this process and in memory."""
    line = next(
        s
        for s in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if "RssFile" in s
    )
    return 1000 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what is in memory")
@pytest.mark.parametrize("index", [None, slice(None), (..., 1), (slice(0, 64, 2), ..., slice(9))])
def test_pages_of_a_memory_map_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Any
) -> None:
    values = np.arange(64 * 512 * 512, dtype=np.float32).reshape(64, 512, 512)
    np.save(tmp_path / "a.npy", values)
    monkeypatch.setattr(file_sources, "MAPPED_BYTES", 2_000_000)
    source = make_source(np.load(tmp_path / "a.npy", mmap_mode="r"), "ZYX")
    before = mapped_memory()
    for z in range(64):
        np.testing.assert_array_equal(source[z], values[z])
    if index is not None:
        np.testing.assert_array_equal(source[index], values[index])
        source[0], source[1], source[2]
    assert mapped_memory() - before < 20_000_000


def test_pages_that_may_have_been_changed_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 64, 64)))
    monkeypatch.setattr(file_sources, "MAPPED_BYTES", 0)
    private = np.load(tmp_path / "a.npy", mmap_mode="c")
    private += 1
    source = make_source(private, "ZYX")
    assert all((plane == 1).all() for plane in source)
    assert all((plane == 1).all() for plane in source)


LARGE = """
import sys
from pathlib import Path
import numpy as np
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.intensity import estimate_range
from cellrt.runtime.image.reading import read_volume
from cellrt.runtime.model.file import open_model
from cellrt.runtime.plan import make_plan
from cellrt.runtime.results.preview.page import write_preview

volume = read_volume(sys.argv[1], axes="ZCYX", channel=2)
estimate_range(volume.image)
write_preview(sys.argv[2], volume.image, np.zeros(volume.shape, np.int32))
card = open_model("nuclei").card
resident = {"image_bytes": volume.nbytes, "resident_bytes": volume.nbytes_resident}
plan = make_plan(volume.shape, (64, 256, 512), card, decoder_for(card), **resident)
# Not from getrusage, which counts what the process that started this one had.
status = Path("/proc/self/status").read_text(encoding="utf-8")
print(1024 * int(status.split("VmHWM:")[1].split()[0]), plan.memory_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other ways elsewhere")
@pytest.mark.parametrize(
    "ending",
    [".zarr", ".h5", pytest.param(".tif", marks=pytest.mark.slow)],
)
def test_one_channel_of_a_large_stack_takes_little_memory(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    shape, chunks = (256, 4, 1024, 2048), (32, 1, 256, 256)
    if ending == ".zarr":
        zarr = pytest.importorskip("zarr", reason="zarr is not installed")
        zarr.open(str(path), mode="w", shape=shape, dtype="uint16", chunks=chunks)
    elif ending == ".h5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", shape, dtype="uint16", chunks=chunks)
    else:
        tifffile = pytest.importorskip("tifffile")
        tifffile.memmap(path, shape=shape, dtype="uint16", ome=True, metadata={"axes": "ZCYX"})
    command = [sys.executable, "-c", LARGE, str(path), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, planned = map(int, done.stdout.split())
    assert peak < 600_000_000
    # The labels of the channel, the network and the decoder; 4.3 GB lie in the file.
    assert planned < 4_500_000_000
