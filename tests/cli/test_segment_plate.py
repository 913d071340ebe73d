"""``cellrt segment FOLDER`` of many images: one cell size, and images that overlap in time only."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tifffile

from cellrt.cli import segment_folder
from cellrt.cli.segment_folder import Room
from cellrt.errors import EngineError, ResourceError
from cellrt.runtime.cell_size.common import SURVEYED
from cellrt.runtime.results import save


def discs(diameter, pitch, shift):
    """Bright discs on a soft background, 144 x 144, moved so that no two images are the same."""
    y, x = np.indices((144, 144))
    distance = np.hypot((y + shift) % pitch - pitch / 2, (x + 2 * shift) % pitch - pitch / 2)
    light = 180 / (1 + np.exp(2 * (distance - diameter / 2))) + 20
    return np.random.default_rng(shift).normal(light, 3).clip(0, 255).astype(np.uint8)


@pytest.fixture
def plate(tmp_path):
    """Eleven images with cells of 18 pixels, and one with cells of 40."""
    folder = tmp_path / "plate"
    folder.mkdir()
    for number in range(12):
        image = discs(40, 60, 3) if number == 2 else discs(18, 30, number)
        tifffile.imwrite(folder / f"well{number}.tif", image)
    return folder


def records(folder):
    return {
        path.name.removesuffix(".run.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in folder.glob("*.run.json")
    }


def test_images_of_a_run_share_a_cell_size_that_their_cells_confirm(cellrt, plate, tmp_path):
    done = cellrt("segment", plate, "-m", "nuclei2d", "--no-preview", "-o", f"{tmp_path}/all/")
    assert done.code == 0, done.err
    found = records(tmp_path / "all")
    odd = found.pop("well2")["scale"]
    sizes = {record["scale"]["diameter_pixels"] for record in found.values()}
    assert len(sizes) == 1
    size = sizes.pop()
    assert size == pytest.approx(18, rel=0.25)
    words = f"the median of {SURVEYED} of 12 images of this run"
    assert f"144 x 144 pixels for nuclei2d: {size:.3g} pixels, {words}" in done.err
    for record in found.values():
        assert words in record["scale"]["diameter_origin"]
        assert any("give --diameter or --voxel-size" in text for text in record["warnings"])
    # Cells that come out otherwise have their own size.
    assert odd["diameter_pixels"] == pytest.approx(40, rel=0.25)
    assert "came out at the common size" in odd["diameter_origin"]
    assert "this image gets its own" in done.err
    # An image alone, with the size that is said, gives the same; so does the whole run once more.
    alone = cellrt(
        "segment", plate / "well7.tif", "-m", "nuclei2d", "--diameter", size, "--no-preview",
        "-o", f"{tmp_path}/one/",
    )  # fmt: skip
    assert alone.code == 0, alone.err
    again = cellrt("segment", plate, "-m", "nuclei2d", "--no-preview", "-o", f"{tmp_path}/two/")
    assert again.code == 0, again.err
    for kind in ("labels.tif", "cells.csv"):
        one = (tmp_path / "one" / f"well7.{kind}").read_bytes()
        assert (tmp_path / "all" / f"well7.{kind}").read_bytes() == one
        for path in (tmp_path / "all").glob(f"*.{kind}"):
            assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_size_that_is_known_or_that_few_images_say_is_not_shared(cellrt, plate, tmp_path):
    words = ("segment", plate, "-m", "nuclei2d", "--no-preview", "-o", f"{tmp_path}/out/")
    done = cellrt(*words, "--diameter", 18)
    assert done.code == 0, done.err
    assert "of this run" not in done.err
    for number in range(3, 12):
        (plate / f"well{number}.tif").unlink()
    done = cellrt(*words, "--overwrite")
    assert done.code == 0, done.err
    assert "of this run" not in done.err
    assert records(tmp_path / "out")["well2"]["scale"]["diameter_pixels"] > 30


def test_nobody_is_told_of_an_image_before_the_one_before_is_done(cellrt, plate):
    (plate / "well4.tif").write_bytes(b"II*\0nothing")
    done = cellrt("segment", plate, "-m", "nuclei2d", "--diameter", 18, "--json")
    assert done.code == 3
    assert "1 of 12 images were left out, as told above: well4.tif" in done.err
    told = [json.loads(line) for line in done.out.splitlines()]
    kinds = [
        event.get("text", event["event"]).partition(":")[0]
        for event in told
        if event["event"] == "result" or event.get("text", "").startswith("image ")
    ]
    expected = []
    for number in range(1, 13):
        expected += [f"image {number} of 12"] + ["result"] * (number != 5)
    assert kinds == expected
    # Each image's stages stand between its name and its result.
    stages = [event["name"] for event in told if event["event"] == "stage"]
    assert stages[stages.index("write") + 1 : stages.index("write") + 3] == ["preview", "read"]


@pytest.mark.parametrize("error", [ResourceError("the disk is full"), EngineError("it broke")])
def test_what_fails_while_the_next_image_is_computed(cellrt, plate, tmp_path, error, monkeypatch):
    write = save.write_labels

    def write_labels(path, labels, volume):
        if volume.path.name == "well3.tif":
            raise error
        write(path, labels, volume)

    monkeypatch.setattr(save, "write_labels", write_labels)
    out = tmp_path / "out"
    words = ("segment", plate, "-m", "nuclei2d", "--diameter", 18, "--no-preview", "-q")
    done = cellrt(*words, "-o", f"{out}/")
    assert str(error) in done.err
    names = {path.name for path in out.iterdir()}
    assert not any(name.startswith((".cellrt", "well3.")) for name in names)
    if isinstance(error, ResourceError):
        assert done.code == 3
        assert "1 of 12 images were left out, as told above: well3.tif" in done.err
        assert len(names) == 3 * 11
    else:  # nothing that one image could be blamed for: the run ends
        assert done.code not in (0, 3)
        wells = {name.partition(".")[0] for name in names}
        assert {"well0", "well1", "well2"} <= wells
        assert len(wells) < 11  # those that had begun are finished, and no others begin
        assert len(names) == 3 * len(wells)


def test_images_give_the_same_one_at_a_time_and_several(cellrt, plate, tmp_path, monkeypatch):
    words = ("segment", plate, "-m", "nuclei2d", "--diameter", 18, "-q")
    for folder, cores, small in (("alone", 1, None), ("several", 3, None), ("large", 3, 0)):
        if small is not None:  # all are too large to be computed beside others
            monkeypatch.setattr(segment_folder, "SMALL", small)
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
        done = cellrt(*words, "-o", f"{tmp_path}/{folder}/")
        assert done.code == 0, done.err
    names = [path.name for path in (tmp_path / "alone").iterdir() if path.suffix != ".json"]
    assert len(names) == 3 * 12
    for name in names:
        results = {(tmp_path / f / name).read_bytes() for f in ("alone", "several", "large")}
        assert len(results) == 1, name


def test_room_is_shared_and_what_needs_more_than_there_is_has_it_alone():
    room, inside, most = Room(10), 0.0, 0.0
    lock = threading.Lock()

    def work(needed):
        nonlocal inside, most
        with room.of(needed):
            with lock:
                inside += min(needed, 10)
                most = max(most, inside)
            with lock:
                inside -= min(needed, 10)

    threads = [threading.Thread(target=work, args=(n,)) for n in (4, 6, 25, 3, 10, 2, 8) * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert inside == 0
    assert 0 < most <= 10
