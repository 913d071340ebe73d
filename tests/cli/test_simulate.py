"""``cellrt simulate`` as a user runs it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from cellrt.runtime.image.reading import read_volume
from cellrt.simulation import NucleiParameters, simulate_nuclei, simulate_worms
from cellrt.simulation.files import save_stack

SMALL = ("--shape", 12, 40, 40)


@pytest.mark.parametrize("kind", ["nuclei", "membranes"])
def test_series_of_stacks_with_ground_truth(cellrt, tmp_path, kind):
    done = cellrt("simulate", kind, "-o", tmp_path / "sim", "--count", 2, *SMALL)
    assert done.code == 0, done.err
    names = sorted(path.name for path in (tmp_path / "sim").iterdir())
    assert names == sorted(
        f"{kind}_{i:03d}{ending}" for i in range(2) for ending in (".tif", ".truth.tif", ".json")
    )
    assert "[2/2]" in done.out
    image = tifffile.imread(tmp_path / "sim" / f"{kind}_001.tif")
    labels = tifffile.imread(tmp_path / "sim" / f"{kind}_001.truth.tif")
    assert image.shape == labels.shape == (12, 40, 40)
    record = json.loads((tmp_path / "sim" / f"{kind}_001.json").read_text(encoding="utf-8"))
    assert record["kind"] == kind
    assert record["seed"] == 1
    assert record["cells"] == labels.max() > 0


def test_imagej_and_cellrt_read_the_voxel_size(cellrt, tmp_path):
    size = (2.0, 0.25, 0.25)
    done = cellrt("simulate", "nuclei", "-o", tmp_path, *SMALL, "--voxel-size", *size)
    assert done.code == 0, done.err
    for name in ("nuclei_000.tif", "nuclei_000.truth.tif"):
        with tifffile.TiffFile(tmp_path / name) as opened:
            assert opened.is_imagej
            assert opened.imagej_metadata["spacing"] == 2.0
            assert opened.imagej_metadata["unit"] == "um"
            assert opened.series[0].axes == "ZYX"
        assert read_volume(tmp_path / name).voxel_size_um == pytest.approx(size)


def test_same_seed_same_pixels_and_another_seed_others(cellrt, tmp_path):
    images = []
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        done = cellrt("simulate", "nuclei", "-o", tmp_path / folder, *SMALL, "--seed", seed)
        assert done.code == 0, done.err
        images.append(tifffile.imread(tmp_path / folder / "nuclei_000.tif"))
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("kind", "style"),
    [
        ("nuclei", "random"),
        ("nuclei", "shell"),
        ("nuclei", "paper"),
        ("membranes", "tissue"),
        ("membranes", "clumped"),
    ],
)
def test_styles(cellrt, tmp_path, kind, style):
    done = cellrt("simulate", kind, "-o", tmp_path, "--style", style, *SMALL, "--diameter", 9)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / f"{kind}_000.json").read_text(encoding="utf-8"))
    assert record["style"] == style
    assert record["diameter_voxels"] == 9


def test_paper_variants_take_turns(cellrt, tmp_path):
    options = ("--style", "paper", "--count", 3, "--shape", 20, 20, 40, "--quiet")
    done = cellrt("simulate", "nuclei", "-o", tmp_path, *options)
    assert done.code == 0, done.err
    assert done.out == ""
    records = [
        json.loads((tmp_path / f"nuclei_{i:03d}.json").read_text(encoding="utf-8"))
        for i in range(3)
    ]
    assert [record["variant"] for record in records] == ["noise", "psf1", "psf2"]


def test_existing_stacks_are_kept_unless_overwritten(cellrt, tmp_path):
    (tmp_path / "nuclei_001.truth.tif").write_text("mine")
    done = cellrt("simulate", "nuclei", "-o", tmp_path, "--count", 2, *SMALL)
    assert done.code == 3
    assert "--overwrite" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["nuclei_001.truth.tif"]
    assert (tmp_path / "nuclei_001.truth.tif").read_text(encoding="utf-8") == "mine"
    done = cellrt("simulate", "nuclei", "-o", tmp_path, "--count", 2, *SMALL, "--overwrite")
    assert done.code == 0, done.err
    assert tifffile.imread(tmp_path / "nuclei_001.truth.tif").shape == (12, 40, 40)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("yeast",), 2, "choose from nuclei, membranes"),
        (("nuclei", "--style", "ball"), 2, "not known for nuclei"),
        (("nuclei", "--shape", 0, 4, 4), 2, "three whole numbers"),
        (("nuclei", "--voxel-size", 0, 1, 1), 2, "voxel size"),
        (("nuclei", "--voxel-size", 1, 0.2, 0.3), 2, "the same"),
        (("nuclei", "--diameter", 1), 2, "3 or more"),
        (("nuclei", "--style", "paper", "--voxel-size", 2, 1, 1), 2, "isotropic"),
        (("nuclei", "--count", 0), 2, ""),
        (("nuclei", "--name", "a/b"), 2, "without folder"),
        (("nuclei", "--shape", 100000, 100000, 100), 5, "smaller shape"),
    ],
)
def test_wrong_options_give_one_line_and_leave_nothing(cellrt, tmp_path, arguments, code, words):
    done = cellrt("simulate", *arguments, "-o", tmp_path / "new")
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "new").exists()


def test_output_folder_that_is_a_file(cellrt, tmp_path):
    (tmp_path / "file").write_text("")
    done = cellrt("simulate", "nuclei", "-o", tmp_path / "file", *SMALL)
    assert done.code == 3
    assert "Traceback" not in done.err


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    stack = simulate_nuclei((4, 16, 16), diameter_voxels=6, nuclei=NucleiParameters(), seed=0)

    def fail(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cellrt.simulation.files.write_labels", fail)
    with pytest.raises(KeyboardInterrupt):
        save_stack(stack, tmp_path / "sim", "stack")
    assert not (tmp_path / "sim").exists()


def test_the_truth_of_worms_is_in_layers(cellrt, tmp_path):
    done = cellrt("simulate", "worms", "-o", tmp_path, "--shape", 1, 128, 144, "--count", 2)
    assert done.code == 0, done.err
    assert "worms; ground truth" in done.out
    assert np.squeeze(tifffile.imread(tmp_path / "worms_000.tif")).shape == (128, 144)
    for index in range(2):
        stack = simulate_worms((128, 144), seed=index)
        with tifffile.TiffFile(tmp_path / f"worms_{index:03d}.truth.tif") as truth:
            assert truth.is_imagej
            assert truth.series[0].axes == "CYX"
            assert np.array_equal(truth.asarray(), stack.layers)
    record = json.loads((tmp_path / "worms_001.json").read_text(encoding="utf-8"))
    assert (record["kind"], record["seed"], record["style"]) == ("worms", 1, "typical")
    assert record["cells"] == stack.cell_count


@pytest.mark.parametrize("kind", ["worms", "bacteria"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shape", 9, 64, 64), "one slice"),
        (("--style", "paper"), "not known"),
        (("--voxel-size", 1, 0.2, 0.3), "the same"),
        (("--voxel-size", 1, 0, 0), "above 0"),
        (("--diameter", 2), "4 to 256 pixels"),
    ],
)
def test_wrong_options_of_one_slice_give_one_line(cellrt, tmp_path, kind, options, words):
    done = cellrt("simulate", kind, "-o", tmp_path / "new", *options)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "new").exists()


def test_a_stack_without_room_for_a_cell_is_a_warning(cellrt, tmp_path):
    done = cellrt("simulate", "nuclei", "-o", tmp_path, "--shape", 16, 16, 16, "--diameter", 15)
    assert done.code == 0, done.err
    assert "warning: " in done.err
    assert "has no cells: none has room in 16 x 16 x 16 voxels" in done.err
    empty = ("simulate", "nuclei", "-o", tmp_path, "--style", "empty", "--shape", 16, 32, 32)
    assert "warning" not in cellrt(*empty, "--overwrite").err
