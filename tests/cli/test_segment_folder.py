"""``cellrt segment FOLDER``: every image in it, with one network."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellrt.errors import InputError
from cellrt.runtime.image.folder import images_of, is_folder_of_images
from cellrt.runtime.network.loaded import LoadedModel

y, x = np.indices((48, 64))
DISCS = (180 * (np.hypot(y % 24 - 12, x % 32 - 16) < 8) + 20).astype(np.uint8)
OPTIONS = ("--model", "nuclei", "--diameter", 16, "--no-preview", "-q")


@pytest.fixture
def plate(tmp_path):
    """PNG, JPEG and TIFF with the same discs, and what is no image."""
    folder = tmp_path / "plate"
    folder.mkdir()
    Image.fromarray(DISCS).save(folder / "a10.png")
    Image.fromarray(DISCS).save(folder / "a2.jpg", quality=95)
    tifffile.imwrite(folder / "b.tif", DISCS)
    (folder / "notes.txt").write_text("of the microscope")
    (folder / ".hidden.png").write_text("")
    (folder / "deeper").mkdir()
    Image.fromarray(DISCS).save(folder / "b.preview.png")
    return folder


def test_every_image_is_segmented_with_one_network(cellrt, plate, tmp_path, monkeypatch):
    made = []
    init = LoadedModel.__init__
    monkeypatch.setattr(
        LoadedModel, "__init__", lambda self, *a, **o: (made.append(self), init(self, *a, **o))[1]
    )
    (plate / "b.preview.png").unlink()
    done = cellrt("segment", plate, *OPTIONS, "-o", f"{tmp_path}/out/")
    assert done.code == 0, done.err
    assert len(made) == 1
    for stem in ("a2", "a10", "b"):
        assert tifffile.imread(tmp_path / "out" / f"{stem}.labels.tif").max() == 4
        assert (tmp_path / "out" / f"{stem}.run.json").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{stem}.{kind}"
        for stem in ("a2", "a10", "b")
        for kind in ("labels.tif", "cells.csv", "run.json")
    )


def test_what_cannot_be_segmented_keeps_none_from_its_turn(cellrt, plate):
    (plate / "a3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Image.fromarray(np.stack([DISCS, DISCS // 2, DISCS // 4], -1)).save(plate / "colour.png")
    (plate / "b.preview.png").unlink()
    done = cellrt("segment", plate, *OPTIONS)
    assert done.code == 3
    assert "a3.png is truncated or damaged" in done.err
    assert "choose one with --channel 1 to" in done.err
    assert "2 of 5 images were left out, as told above: a3.png, colour.png" in done.err
    assert "Traceback" not in done.err
    for stem in ("a2", "a10", "b"):
        assert (plate / f"{stem}.labels.tif").exists()
    # Once more: results stay, only what is new is segmented.
    before = (plate / "b.labels.tif").stat().st_mtime_ns
    tifffile.imwrite(plate / "c.tif", DISCS)
    done = cellrt("segment", plate, *OPTIONS)
    assert done.code == 3
    assert "exists already" not in done.err
    assert done.err.splitlines()[-1].endswith("; 1 image done, 3 were there already")
    assert (plate / "c.labels.tif").exists()
    assert (plate / "b.labels.tif").stat().st_mtime_ns == before


def test_a_run_goes_on_where_it_was_interrupted(cellrt, plate, tmp_path):
    (plate / "b.preview.png").unlink()
    words = ("segment", plate, *OPTIONS[:-1], "-o", f"{tmp_path}/out/")
    done = cellrt(*words)
    assert done.out.splitlines()[-1] == "3 images done"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    gone = [path for path in before if path.name.startswith("a10.")]
    for path in gone:
        path.unlink()
    plan = cellrt(*words, "--dry-run")
    assert plan.out.splitlines()[-1] == "1 image planned, 2 were there already"
    done = cellrt(*words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "1 image done, 2 were there already"
    assert "image 2 of 3: a10.png" in done.err
    assert "a2.jpg" not in done.err
    for path, time in before.items():
        assert (path.stat().st_mtime_ns == time) == (path not in gone)
    events = [json.loads(line) for line in cellrt(*words, "--json").out.splitlines()]
    assert events[-1] == {
        "event": "folder",
        "done": 0,
        "there": ["a2.jpg", "a10.png", "b.tif"],
        "left_out": [],
    }
    assert cellrt(*words, "--overwrite").out.splitlines()[-1] == "3 images done"


def edit_record(plate, out):
    path = out / "b.run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"cellrt": "', '"cellrt": "0.'))


def cut_record(plate, out):
    (out / "b.run.json").write_text("{")


def remove_table(plate, out):
    (out / "b.cells.csv").unlink()


def touch_image(plate, out):
    later = (out / "b.run.json").stat().st_mtime + 10
    os.utime(plate / "b.tif", (later, later))


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (edit_record, (), "they are of cellrt 0."),
        (cut_record, (), "b.run.json is no record"),
        (remove_table, (), "b.cells.csv is missing"),
        (touch_image, (), "the image is newer"),
        (None, ("--diameter", 17), "they are of other options (diameter)"),
        (None, ("--param", "foreground_threshold=0.4"), "other options (decoder_parameters)"),
        (None, ("--voxel-size", 1, 1, 1), "they are of another image (voxel_size_um"),
        (None, ("--preview",), "b.preview.png is missing"),
        (None, ("--model", "nuclei2d"), "they are of the model nuclei)"),
    ],
)
def test_what_is_there_of_another_run_is_an_error(cellrt, plate, tmp_path, change, options, reason):
    for path in plate.glob("[a.]*"):
        path.unlink()
    (plate / "b.preview.png").unlink()
    out = tmp_path / "out"
    words = ("segment", plate, *OPTIONS, "-o", f"{out}/")
    assert cellrt(*words).code == 0
    if change is not None:
        change(plate, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    done = cellrt(*words, *options)
    assert done.code == 3
    assert "exists already; use --overwrite" in done.err
    assert reason in done.err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_wells_of_the_same_name_of_another_plate_are_not_taken_for_done(
    cellrt, plate, tmp_path, monkeypatch
):
    (plate / "b.preview.png").unlink()
    other = tmp_path / "other"
    shutil.copytree(plate, other)
    for folder, code in ((plate, 0), (other, 3), (plate, 0)):
        monkeypatch.chdir(folder)
        done = cellrt("segment", ".", *OPTIONS, "-o", f"{tmp_path}/out/")
        assert done.code == code, done.err
        assert ("they are of another image (folder)" in done.err) == (code == 3)
    # However it is called.
    assert cellrt("segment", plate, *OPTIONS, "-o", f"{tmp_path}/out/").code == 0


def test_what_is_said_of_models_and_reading_is_said_once_and_of_which_images(cellrt, plate):
    (plate / "b.preview.png").unlink()
    tifffile.imwrite(plate / "c.tif", np.stack([DISCS] * 8), imagej=True, metadata={"axes": "ZYX"})
    done = cellrt("segment", plate, "--diameter", 16, "--no-preview", "--anisotropy", 1)
    assert done.code == 0, done.err
    lines = [line.strip() for line in done.err.splitlines()]
    assert lines.count("images of one slice: the model is nuclei2d") == 1
    assert lines.count("stacks: the model is nuclei") == 1
    assert lines.count("Reading ...") == 4
    alone = cellrt("segment", plate / "b.tif", "--diameter", 16, "--no-preview", "--overwrite")
    assert "one slice: the model is nuclei2d" in alone.err.splitlines()[0]


def test_colours_of_a_folder_by_their_luminance(cellrt, plate):
    folder = plate / "deeper"
    colour = np.stack([DISCS, DISCS // 2, DISCS // 4], axis=-1)
    Image.fromarray(colour).save(folder / "x.png")
    tifffile.imwrite(folder / "y.tif", colour, photometric="rgb")
    options = [word for word in OPTIONS if word != "-q"]
    done = cellrt("segment", folder, *options, "--channel", "luminance")
    assert done.code == 0, done.err
    assert "channel 4 of 4, called 'luminance', chosen by name" in done.err
    assert "image 2 of 2: y.tif" in done.err
    for stem in ("x", "y"):
        assert tifffile.imread(folder / f"{stem}.c4.labels.tif").max() == 4
        record = json.loads((folder / f"{stem}.c4.run.json").read_text(encoding="utf-8"))
        assert "luminance" in json.dumps(record["input"])


@pytest.mark.parametrize(
    ("change", "output", "code", "words"),
    [
        (lambda plate: (plate / "b.png").write_text(""), (), 2, "would both write b.labels.tif"),
        (lambda plate: None, ("-o", "all.tif"), 2, "is one file"),
        (lambda plate: [p.unlink() for p in plate.glob("*.*") if p.is_file()], (), 3, "no images"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_first(cellrt, plate, change, output, code, words):
    change(plate)
    before = sorted(plate.iterdir())
    done = cellrt("segment", plate, *OPTIONS, *output)
    assert done.code == code
    assert words.replace("no images", "folder without images") in done.err
    assert sorted(plate.iterdir()) == before


def test_images_of_a_kind_that_is_not_read_are_not_passed_over_in_silence(cellrt, plate, tmp_path):
    Image.fromarray(DISCS).save(plate / "c.gif")
    (plate / "D7.CZI").write_bytes(b"ZISRAWFILE")
    done = cellrt("segment", plate, *OPTIONS, "--dry-run", "-o", f"{tmp_path}/out/")
    assert done.code == 0, done.err
    assert "2 files of a kind that cellrt does not read passed over, the first is D7" in done.err


def test_warnings_name_their_image_where_nothing_else_does(cellrt, plate, tmp_path):
    done = cellrt("segment", plate, *OPTIONS, "--min-size", 3000, "-o", f"{tmp_path}/out/")
    assert done.code == 0, done.err
    for name in ("a2.jpg", "a10.png", "b.tif"):
        assert f"{name}: all cells that were found were left out by --min-size" in done.err


def test_images_are_told_from_results_and_sorted_as_people_do(plate):
    for name in ("a1.labels.tif", "A1.preview.png", "a1.overlaps.tif", "w.truth.tif"):
        (plate / name).write_text("")
    assert [path.name for path in images_of(plate)] == ["a2.jpg", "a10.png", "b.tif"]
    assert is_folder_of_images(plate)
    assert not is_folder_of_images(plate / "b.tif")
    assert not any(map(is_folder_of_images, ("", " ")))
    (plate / "deeper" / "zarr.json").write_text("{}")
    assert not is_folder_of_images(plate / "deeper")
    with pytest.raises(InputError, match="cannot be read"):
        images_of(plate / "missing")
