"""`cellrt evaluate` on files: text for people, JSON for machines, clear errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import typer
from typer.testing import CliRunner

from cellrt.cli.evaluate import evaluate
from cellrt.errors import InputError, UsageError

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture
def labels():
    truth = np.zeros((4, 6, 8), np.uint16)
    truth[:, :3], truth[:, 3:] = 1, 2
    prediction = truth.copy()
    prediction[:, 3:, 4:] = 3
    return prediction, truth


@pytest.fixture
def files(tmp_path, labels):
    paths = tmp_path / "labels.tif", tmp_path / "truth.tif"
    for path, image in zip(paths, labels, strict=True):
        tifffile.imwrite(path, image, photometric="minisblack")
    return [str(path) for path in paths]


def run(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_json_is_one_object_with_numbers_and_definitions(files):
    result = json.loads(run(*files, "--json").stdout)
    assert (result["true_cells"], result["predicted_cells"]) == (2, 3)
    assert result["matching"][0]["average_precision"] == pytest.approx(2 / 3)
    assert len(result["matching"]) == 10
    assert result["prediction"] == files[0]
    assert result["ignore_unlabelled"] is False
    assert "TP/(TP+FP+FN)" in result["definitions"]["average_precision"]


def test_options_reach_the_scores(files):
    result = json.loads(
        run(
            *files, "--json", "--ignore-unlabelled", "--threshold", "0.4", "--threshold", "0.9"
        ).stdout
    )
    assert [row["threshold"] for row in result["matching"]] == [0.4, 0.9]
    assert result["ignore_unlabelled"] is True


def test_text_states_numbers_and_what_they_mean(files):
    text = run(*files).stdout
    assert "3 predicted cells, 2 true cells" in text
    assert "mean Dice" in text
    assert "AP = TP/(TP+FP+FN)" in text
    assert "0.667" in text
    assert text.isascii()


def test_text_says_when_unlabelled_voxels_were_ignored(files):
    assert "unlabelled voxels ignored" in run(*files, "--ignore-unlabelled").stdout


def test_other_formats(tmp_path, files, labels):
    expected = json.loads(run(*files, "--json").stdout)["matching"]
    np.save(tmp_path / "labels.npy", labels[0])
    np.savez(tmp_path / "both.npz", found=labels[0], truth=labels[1])
    arguments = [str(tmp_path / "labels.npy"), str(tmp_path / "both.npz:truth")]
    assert json.loads(run(*arguments, "--json").stdout)["matching"] == expected


def test_hdf5(tmp_path, files, labels):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    expected = json.loads(run(*files, "--json").stdout)["matching"]
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["volumes/truth"] = labels[1]
        file["raw"] = labels[1]
    arguments = [files[0], f"{path}:/volumes/truth", "--json"]
    assert json.loads(run(*arguments).stdout)["matching"] == expected
    with pytest.raises(InputError, match=r"raw, volumes/truth.*stack\.h5:NAME"):
        run(files[0], str(path))
    with pytest.raises(InputError, match="no dataset 'lost'"):
        run(files[0], f"{path}:lost")


def test_axes_of_length_one_do_not_count(tmp_path, files, labels):
    np.save(tmp_path / "five.npy", labels[0][None, None])
    result = json.loads(run(str(tmp_path / "five.npy"), files[1], "--json").stdout)
    assert result["true_cells"] == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.tif", None, "does not exist"),
        ("empty.tif", b"", "is empty"),
        ("text.tif", b"not an image at all", "is no TIFF file"),
        ("broken.npy", b"\x93NUMPY", "truncated or damaged"),
        ("broken.npz", b"PK", "truncated or damaged"),
        ("image.jpg", b"\xff\xd8", "is no JPEG file"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, files, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        run(str(path), files[1])
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_compressed_labels_are_read_as_segment_reads_them(tmp_path, files, labels):
    image = pytest.importorskip("PIL.Image")
    first, *others = (image.fromarray(plane) for plane in labels[1])
    path = tmp_path / "lzw.tif"
    first.save(path, save_all=True, append_images=others, compression="tiff_lzw")
    result = json.loads(run(files[0], str(path), "--json").stdout)
    assert result["matching"] == json.loads(run(*files, "--json").stdout)["matching"]


def test_truncated_tiff(tmp_path, files):
    whole = (tmp_path / "labels.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.tif"):
        run(str(tmp_path / "cut.tif"), files[1])


def test_shapes_and_thresholds_are_checked(tmp_path, files):
    np.save(tmp_path / "small.npy", np.zeros((4, 6, 7), int))
    with pytest.raises(InputError, match=r"\(4, 6, 7\)"):
        run(str(tmp_path / "small.npy"), files[1])
    with pytest.raises(UsageError, match="above 0"):
        run(*files, "--threshold", "50")


@pytest.mark.parametrize("grey_is", ["prediction", "truth"])
def test_an_image_in_the_place_of_labels_is_a_warning(cellrt, tmp_path, files, grey_is):
    grey = np.random.default_rng(0).poisson(200, (4, 24, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="minisblack")
    labels = np.zeros(grey.shape, np.uint16)
    labels[:, :12], labels[:, 12:] = 1, 2
    tifffile.imwrite(tmp_path / "two.tif", labels, photometric="minisblack")
    pair = [tmp_path / "grey.tif", tmp_path / "two.tif"]
    done = cellrt("evaluate", *(pair if grey_is == "prediction" else pair[::-1]), "--json")
    assert done.code == 0
    assert done.err.startswith(f"warning: the {grey_is} looks like an image and not like labels")
    assert done.err.count("\n") == 1
    assert len(json.loads(done.out)["warnings"]) == 1
    done = cellrt("evaluate", *files)
    assert done.err == ""


def test_channels_are_layers_of_cells_that_overlap(tmp_path):
    from cellrt.simulation import simulate_worms
    from cellrt.simulation.files import save_stack

    stack = simulate_worms((128, 144), seed=1)
    truth = str(save_stack(stack, tmp_path, "w")["truth"])
    same = json.loads(run(truth, truth, "--json").stdout)
    assert same["coco_average_precision"] == 1
    assert same["symmetric_best_dice"] == 1
    assert same["true_cells"] == same["predicted_cells"] == stack.cell_count
    assert same["adapted_rand_error"] is None
    # A label image without overlaps loses what others cover.
    tifffile.imwrite(tmp_path / "flat.tif", stack.labels.astype(np.uint16))
    for words in ((str(tmp_path / "flat.tif"), truth), (truth, str(tmp_path / "flat.tif"))):
        flat = json.loads(run(*words, "--json").stdout)
        assert flat["count_difference"] == 0
        assert 0.7 < flat["mean_jaccard"] < 1
    assert "VOI split" in run(truth, truth).stdout
    # Channels of different things, each with its own cells from 1, are no layers.
    two = np.stack([stack.labels[0], stack.labels[0]]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "two.tif", two, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="label 1 in 2 channels"):
        run(str(tmp_path / "two.tif"), truth)
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((9, 9), np.uint16))
    with pytest.raises(InputError, match="same grid"):
        run(str(tmp_path / "other.tif"), truth)
