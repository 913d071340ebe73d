"""``cellrt segment FOLDER``: every image in it, with one network."""

from __future__ import annotations

import json

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
    assert "choose the one to segment" in done.err
    assert "2 of 5 images could not be segmented, as told above: a3.png, colour.png" in done.err
    assert "Traceback" not in done.err
    for stem in ("a2", "a10", "b"):
        assert (plate / f"{stem}.labels.tif").exists()
    # Once more: results stay, only what is new is segmented.
    before = (plate / "b.labels.tif").stat().st_mtime_ns
    tifffile.imwrite(plate / "c.tif", DISCS)
    done = cellrt("segment", plate, *OPTIONS)
    assert done.code == 3
    assert "exists already" in done.err
    assert (plate / "c.labels.tif").exists()
    assert (plate / "b.labels.tif").stat().st_mtime_ns == before


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
