"""Labels written are labels read, with their axes and voxel size, by cellrt and by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.runtime.image.reading import read_volume
from cellrt.runtime.image.volume import Volume, volume_from_array
from cellrt.runtime.results.label_tiff import write_labels

sizes = st.floats(1e-3, 150.0)


@settings(max_examples=60)
@given(
    # Older tifffile takes a width of 1 for something else.
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(2, 9)),
    flat=st.booleans(),
    voxel_size=st.none() | st.tuples(sizes, sizes, sizes) | st.just((1.0, 1.0, 1.0)),
    largest=st.sampled_from([0, 1, 300, 65_535, 65_536, 2**31 - 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_written_labels_are_read_with_axes_and_voxel_size(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    flat: bool,
    voxel_size: tuple[float, float, float] | None,
    largest: int,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("labels") / "stack.labels.tif"
    image = np.zeros(shape[1:] if flat else shape, np.uint8)
    volume = volume_from_array(image, voxel_size_um=voxel_size)
    labels = np.random.default_rng(seed).integers(0, largest, volume.shape, np.int32, endpoint=True)
    labels[-1, -1, -1] = largest
    write_labels(path, labels, volume)
    again = read_volume(path)
    np.testing.assert_array_equal(again.image[:], labels)
    assert again.file_axes == ("YX" if shape[0] == 1 or flat else "ZYX")
    assert again.image.dtype.itemsize == (2 if largest <= 65_535 else 4)
    if voxel_size is None:
        assert again.voxel_size_um is None
    else:
        assert again.voxel_size_um == pytest.approx(voxel_size, rel=2e-3)


@pytest.mark.parametrize("size", [(2.0, 0.3, 0.31), (0.284, 0.127, 0.127), (1.75, 0.8, 0.8)])
def test_voxel_sizes_of_microscopes_keep_six_digits(
    tmp_path: Path, size: tuple[float, float, float]
) -> None:
    volume = volume_from_array(np.zeros((3, 4, 5), np.uint8), voxel_size_um=size)
    for largest in (7, 70_000):
        labels = np.full((3, 4, 5), largest, np.int32)
        write_labels(tmp_path / "labels.tif", labels, volume)
        assert read_volume(tmp_path / "labels.tif").voxel_size_um == pytest.approx(size, rel=1e-6)


def with_size(volume: Volume, size: tuple[float | None, ...]) -> Volume:
    return Volume(**{**vars(volume), "voxel_size_um": size})


@pytest.mark.parametrize("largest", [7, 70_000])
def test_partly_known_voxel_size_stays_partly_known(tmp_path: Path, largest: int) -> None:
    volume = with_size(volume_from_array(np.zeros((3, 4, 5), np.uint8)), (None, 0.2, 0.25))
    write_labels(tmp_path / "labels.tif", np.full((3, 4, 5), largest, np.int32), volume)
    z, y, x = read_volume(tmp_path / "labels.tif").voxel_size_um or (0, 0, 0)
    assert z is None
    assert (y, x) == pytest.approx((0.2, 0.25))


def test_few_cells_make_an_imagej_hyperstack_that_imagej_can_decompress(tmp_path: Path) -> None:
    volume = volume_from_array(np.zeros((6, 40, 50), np.uint8), voxel_size_um=(2, 0.5, 0.5))
    labels = np.arange(6 * 40 * 50, dtype=np.int32).reshape(6, 40, 50)
    write_labels(tmp_path / "labels.tif", labels, volume)
    with tifffile.TiffFile(tmp_path / "labels.tif") as tif:
        assert tif.is_imagej
        assert not tif.is_bigtiff
        assert tif.series[0].axes == "ZYX"
        metadata = tif.imagej_metadata or {}
        assert (metadata["slices"], metadata["spacing"], metadata["unit"]) == (6, 2.0, "um")
        assert metadata["max"] == labels.max()
        # One directory per slice: ImageJ needs that as soon as a stack is compressed.
        assert len(tif.pages) == 6
        for page in tif.pages:
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert page.predictor == 1
            assert not page.is_tiled


def test_many_cells_make_an_ome_tiff_of_the_same_name(tmp_path: Path) -> None:
    volume = volume_from_array(np.zeros((3, 200, 200), np.uint8))
    labels = np.arange(3 * 200 * 200, dtype=np.int32).reshape(3, 200, 200)
    write_labels(tmp_path / "labels.tif", labels, volume)
    with tifffile.TiffFile(tmp_path / "labels.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].dtype == np.uint32
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels.tif"), labels)


def test_labels_of_another_shape_are_a_mistake(tmp_path: Path) -> None:
    volume = volume_from_array(np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        write_labels(tmp_path / "labels.tif", np.zeros((4, 5, 3), np.int32), volume)


@pytest.mark.slow
def test_labels_beyond_4_gib_make_a_bigtiff(tmp_path: Path) -> None:
    image = np.broadcast_to(np.uint8(0), (1100, 1000, 2000))
    labels = np.broadcast_to(np.int32(70_000), image.shape)
    write_labels(tmp_path / "labels.tif", labels, volume_from_array(image))
    with tifffile.TiffFile(tmp_path / "labels.tif") as tif:
        assert tif.is_bigtiff
        assert tif.series[0].shape == image.shape
        assert tif.pages[1099].asarray().min() == 70_000


@pytest.mark.parametrize("largest", [40_000, 70_000])
def test_pages_that_are_compressed_side_by_side_stay_in_order(tmp_path, largest):
    labels = np.linspace(0, largest, 700 * 6).astype(np.int32).reshape(700, 2, 3)
    path = tmp_path / "deep.labels.tif"
    write_labels(path, labels, volume_from_array(np.zeros(labels.shape, np.uint8)))
    np.testing.assert_array_equal(tifffile.imread(path), labels)
