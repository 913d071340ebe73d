"""Where ``cellrt segment`` writes, what the files are called, and what it never writes over."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tifffile

import cellrt as package
from cellrt.errors import CellrtWarning, InputError, UsageError
from cellrt.runtime.image.source import Unread

ENDINGS = (".labels.tif", ".cells.csv", ".preview.png", ".run.json")


def results(stem):
    return {f"{stem}{ending}" for ending in ENDINGS}


def names(folder):
    return {path.name for path in folder.iterdir()}


def save(path, shape=(8, 24, 24), axes="ZYX", **options):
    """Write a blank ImageJ stack: the network does not run, and results come all the same."""
    image = np.zeros(shape, np.uint16)
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": axes}, **options)
    return path


@pytest.fixture
def stack(tmp_path):
    return save(tmp_path / "stack.tif")


@pytest.fixture
def movie(tmp_path):
    """Three time points and two channels, compressed, so that reading means reading all."""
    return save(tmp_path / "movie.tif", (3, 8, 2, 16, 16), "TZCYX", compression="zlib")


@pytest.fixture
def unread(monkeypatch):
    """Fail where voxels are read that could have stayed in the file."""

    def fail(self):
        raise AssertionError("voxels were read")

    monkeypatch.setattr(Unread, "load", fail)


def refused(done, code, *words):
    """One line with these words, before anything is computed."""
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("cellrt: ")]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]
    assert "Looking" not in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "name", ["cells.csv", "x.png", "a.json", "labels.npy", "labels", "x.tif.gz", ".tif", "x.lsm"]
)
def test_an_output_that_is_no_tiff_is_refused(cellrt, stack, tmp_path, name):
    done = cellrt("segment", stack, "-o", tmp_path / "new" / name)
    refused(done, 2, "TIFF", "expected NAME.tif")
    assert names(tmp_path) == {"stack.tif"}


@pytest.mark.parametrize(
    ("name", "ome"), [("X.TIF", False), ("x.tiff", False), ("x.ome.tif", True)]
)
def test_the_label_file_is_what_its_name_says(cellrt, stack, tmp_path, name, ome):
    done = cellrt("segment", stack, "-o", tmp_path / "out" / name, "-q")
    assert done.code == 0, done.err
    with tifffile.TiffFile(tmp_path / "out" / name) as tif:
        assert tif.is_ome == ome
        assert tif.asarray().shape == (8, 24, 24)
    stem = name.split(".")[0]
    assert names(tmp_path / "out") == {name} | {f"{stem}{ending}" for ending in ENDINGS[1:]}
    refused(cellrt("segment", tmp_path / "out" / name), 3, "labels that cellrt wrote")


@pytest.mark.parametrize("existing", [True, False])
def test_a_folder_as_output_takes_all_results(cellrt, stack, tmp_path, existing):
    if existing:
        (tmp_path / "out").mkdir()
    done = cellrt("segment", stack, "-o", f"{tmp_path}/out/", "-q")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == results("stack")


def test_an_existing_folder_needs_no_slash(cellrt, stack, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    assert cellrt("segment", stack, "-o", tmp_path / "out", "-q").code == 0
    assert names(tmp_path / "out") == results("stack")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cellrt("segment", stack, "-o", ".", "-q").code == 0
    assert names(tmp_path / "here") == results("stack")


def test_a_folder_that_is_a_file_is_refused(cellrt, stack, tmp_path):
    (tmp_path / "out.tif").write_text("mine")
    refused(cellrt("segment", stack, "-o", f"{tmp_path}/out.tif/"), 3, "cannot make the folder")
    refused(cellrt("segment", stack, "-o", f"{tmp_path}/out.tif/a/b.tif"), 3, "cannot make")
    assert names(tmp_path) == {"stack.tif", "out.tif"}


def test_nothing_is_written_into_a_store(cellrt, stack, tmp_path):
    store = tmp_path / "store.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    for output in (store, f"{store}/", store / "new" / "x.tif"):
        refused(cellrt("segment", stack, "-o", output), 2, "inside of", "-o")
    assert names(store) == {"zarr.json"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([""], 2, "names no file"),
        ([" "], 2, "names no file"),
        ([".."], 3, "a folder without images"),
        (["sub/"], 3, "a folder without images"),
        (["sub"], 3, "a folder without images"),
        (["stack.tif", "-o", ""], 2, "names no file"),
        (["stack.tif", "--series", ""], 2, "series"),
        (["missing/"], 3, "does not exist"),
    ],
)
def test_what_names_no_file_is_one_line(cellrt, stack, tmp_path, monkeypatch, words, code, message):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    refused(cellrt("segment", *words), code, message)
    assert names(tmp_path) == {"stack.tif", "sub"}


def test_evaluate_names_an_empty_path_too(cellrt, stack):
    refused(cellrt("evaluate", "", stack), 2, "names no file")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_pipe_is_never_replaced(cellrt, stack, tmp_path, ending):
    pipe = tmp_path / f"stack{ending}"
    os.mkfifo(pipe)
    for words in ((), ("--overwrite",)):
        refused(cellrt("segment", stack, *words), 3, "is a pipe and no regular file")
    assert pipe.is_fifo()


def test_a_socket_and_a_link_to_a_pipe_are_never_replaced(cellrt, stack, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.tif").symlink_to("pipe")
    refused(cellrt("segment", stack, "-o", tmp_path / "link.tif", "--overwrite"), 3, "is a pipe")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("s.tif")
        refused(cellrt("segment", stack, "-o", "s.tif", "--overwrite"), 3, "is a socket")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link.tif").is_symlink()


def test_of_a_link_the_link_is_replaced(cellrt, stack, tmp_path):
    (tmp_path / "precious.tif").write_text("precious")
    link = tmp_path / "stack.labels.tif"
    link.symlink_to("precious.tif")
    refused(cellrt("segment", stack), 3, "exists already")
    assert cellrt("segment", stack, "--overwrite", "-q").code == 0
    assert not link.is_symlink()
    assert (tmp_path / "precious.tif").read_text() == "precious"


def test_a_link_to_nothing_is_something(cellrt, stack, tmp_path):
    (tmp_path / "stack.labels.tif").symlink_to("nothing")
    refused(cellrt("segment", stack), 3, "exists already")


@pytest.mark.parametrize("ending", [".tif", ".npy", ".h5", ".npz", ".raw"])
def test_a_pipe_as_input_is_refused_at_once(cellrt_process, tmp_path, ending):
    pipe = tmp_path / f"in{ending}"
    os.mkfifo(pipe)
    done = cellrt_process("segment", pipe, timeout=120)
    refused(done, 3, "is a pipe", "save it to a file first")


@pytest.mark.parametrize("model", ["PIPE", "nuclei"])
def test_other_commands_wait_for_no_pipe_either(cellrt_process, stack, tmp_path, model):
    pipe = tmp_path / "a.onnx"
    os.mkfifo(pipe)
    if model == "PIPE":
        refused(cellrt_process("segment", stack, "-m", pipe, timeout=120), 3, "is a pipe")
    else:
        refused(cellrt_process("evaluate", pipe, stack, timeout=120), 3, "is a pipe")


def test_the_longest_name_has_results_and_a_longer_one_is_told_of(cellrt, tmp_path):
    longest = save(tmp_path / f"{'a' * 240}.tif")
    stem = "a" * 240
    assert cellrt("segment", longest, "-q", "-o", f"{tmp_path}/{'b' * 243}.tif").code == 0
    assert f"{'b' * 243}.cells.csv" in names(tmp_path)
    done = cellrt("segment", longest, "-q")
    assert done.code == 0, done.err
    assert results(stem) <= names(tmp_path)


def test_a_dry_run_refuses_what_the_run_would_refuse(cellrt, stack, tmp_path, monkeypatch):
    """The same words and code, nothing touched."""
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "old.cells.csv").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = names(tmp_path)
    outputs = ("pipe.tif", "stack.tif", f"{'n' * 245}.tif", "file/a.tif", "old.tif", "s3://b/a.tif")
    for output in outputs:
        run = cellrt("segment", stack, "-o", output)
        dry = cellrt("segment", stack, "-o", output, "--dry-run")
        refused(dry, run.code, run.err.splitlines()[-1])
        assert dry.code in (2, 3)
    dry = cellrt("segment", stack, "-o", "old.tif", "--dry-run", "--overwrite")
    assert dry.code == 0, dry.err
    assert cellrt("segment", stack, "-o", "new/a.tif", "--dry-run").code == 0
    assert names(tmp_path) == before


def test_a_dry_run_sees_a_full_disk_and_a_folder_that_takes_nothing(cellrt, stack, monkeypatch):
    real = shutil.disk_usage
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=10))
        refused(cellrt("segment", stack, "--dry-run"), 5, "disk")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(cellrt("segment", stack, "--dry-run"), 3, "cannot write to")


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_results_whose_names_are_too_long_are_refused_before_anything(
    cellrt, tmp_path, unread, letter
):
    length = len(os.fsencode(letter))
    stack = save(tmp_path / f"{letter * (246 // length)}.tif", compression="zlib")
    refused(cellrt("segment", stack), 2, "at most 255", "-o")
    assert names(tmp_path) == {stack.name}


def test_a_name_that_is_no_text_is_segmented(cellrt_process, tmp_path):
    name = os.fsdecode(b"st\xff\nack")
    try:
        stack = save(tmp_path / f"{name}.tif")
    except OSError:
        pytest.skip("the file system takes text only")
    done = cellrt_process("segment", stack, "--json")
    assert done.code == 0, done.err
    written = names(tmp_path) - {stack.name}
    assert written == results(name)
    record = json.loads((tmp_path / f"{name}.run.json").read_text(encoding="utf-8"))
    assert os.fsencode(record["input"]["path"]) == os.fsencode(stack)
    last = json.loads(done.out.splitlines()[-1])
    assert os.fsencode(last["files"]["labels"]) == os.fsencode(tmp_path / f"{name}.labels.tif")
    again = cellrt_process("segment", stack, errors="surrogateescape")
    refused(again, 3, "exists already")
    assert len(again.err.splitlines()) == 2
    shown = cellrt_process("segment", stack, "--overwrite", errors="surrogateescape")
    assert shown.code == 0, shown.err
    assert "st\udcff\\nack.labels.tif" in shown.out
    dry = cellrt_process("segment", stack, "--dry-run", "--overwrite", errors="surrogateescape")
    assert dry.code == 0, dry.err
    scored = cellrt_process(
        "evaluate", tmp_path / f"{name}.labels.tif", stack, errors="surrogateescape"
    )
    assert scored.code == 0, scored.err


HOLD = """
import sys
from pathlib import Path
from cellrt.runtime.image.reading import read_volume
from cellrt.runtime.results.save import outputs_of
with outputs_of(read_volume(sys.argv[1]), None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_while_the_first_one_works(cellrt, tmp_path, monkeypatch):
    stack = save(tmp_path / "stack.tif", compression="zlib")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(stack)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "held\n"
        with monkeypatch.context() as patched:
            patched.setattr(Unread, "load", lambda self: pytest.fail("voxels were read"))
            for words in ((), ("--overwrite",), ("-o", tmp_path / "stack.tiff")):
                refused(cellrt("segment", stack, *words), 3, "another run is writing")
        # Killed, it leaves its files behind, and they stop nobody.
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=60)
    finally:
        first.kill()
        first.communicate()
    assert any(name.endswith(".lock") for name in names(tmp_path))
    done = cellrt("segment", stack, "-q")
    assert done.code == 0, done.err
    assert names(tmp_path) == {"stack.tif"} | results("stack")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 3),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 5),
    ],
)
def test_what_goes_wrong_with_outputs_is_not_the_input_s(cellrt, stack, monkeypatch, error, code):
    from cellrt.runtime.results import save

    def fail(*_, **__):
        if code == 3:
            raise InputError("the output is odd") from error
        raise error

    monkeypatch.setattr(save, "atomic_outputs", fail)
    done = cellrt("segment", stack)
    refused(done, code, "the output is odd" if code == 3 else "out of memory")
    assert "stack.tif does not fit" not in done.err


@pytest.mark.parametrize("name", ["out of memory.tif", "bad_alloc.npy"])
def test_a_file_may_be_called_like_a_lack_of_memory(cellrt, tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, np.zeros((2, 2, 8, 16, 16), np.uint8))
    else:
        save(path, (8, 2, 16, 16), "ZCYX")
    done = cellrt("segment", path)
    refused(done, 3, name)
    assert "does not fit" not in done.err


def test_of_two_runs_at_once_exactly_one_writes(stack, tmp_path):
    command = [sys.executable, "-m", "cellrt", "segment", str(stack), "-q"]
    runs = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [run.communicate(timeout=300)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 3], errors
    assert names(tmp_path) == {"stack.tif"} | results("stack")


@pytest.mark.parametrize("words", [(), ("-o", "again.tif")])
def test_its_own_labels_are_not_segmented(cellrt, stack, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert cellrt("segment", stack, "-q").code == 0
    before = names(tmp_path)
    shutil.copy(tmp_path / "stack.labels.tif", tmp_path / "renamed.tif")
    for name in ("stack.labels.tif", "renamed.tif"):
        refused(cellrt("segment", name, *words), 3, "labels that cellrt wrote")
    assert names(tmp_path) == before | {"renamed.tif"}
    done = cellrt("evaluate", "stack.labels.tif", "renamed.tif")
    assert done.code == 0, done.err


def test_simulated_truth_is_not_segmented_and_the_image_is(cellrt, tmp_path):
    assert cellrt("simulate", "nuclei", "-o", tmp_path, "--shape", 12, 32, 32).code == 0
    refused(cellrt("segment", tmp_path / "nuclei_000.truth.tif"), 3, "labels that cellrt wrote")
    done = cellrt("segment", tmp_path / "nuclei_000.tif", "--diameter", 16, "--dry-run")
    assert done.code == 0, done.err


def test_labels_that_another_program_saved_are_an_image(cellrt, stack, tmp_path):
    assert cellrt("segment", stack, "-q").code == 0
    image = tifffile.imread(tmp_path / "stack.labels.tif")
    tifffile.imwrite(tmp_path / "anew.tif", image, imagej=True, metadata={"axes": "ZYX"})
    assert cellrt("segment", tmp_path / "anew.tif", "-q").code == 0


def test_time_points_and_channels_never_share_results(cellrt, movie, tmp_path):
    for time, channel in ((1, 1), (2, 1), (2, 2)):
        done = cellrt("segment", movie, "--time", time, "--channel", channel, "-q")
        assert done.code == 0, done.err
        record = json.loads((tmp_path / f"movie.t{time}.c{channel}.run.json").read_text())
        told = record["input"]
        assert (told["time"], told["times"], told["channel_number"]) == (time, 3, channel)
        assert told["channels"] == ["channel 1", "channel 2"]
    stems = ("movie.t1.c1", "movie.t2.c1", "movie.t2.c2")
    assert names(tmp_path) == {"movie.tif"}.union(*(results(stem) for stem in stems))


def test_the_only_time_point_and_channel_are_not_in_the_names(cellrt, stack, tmp_path):
    assert cellrt("segment", stack, "--time", 1, "--channel", 1, "-q").code == 0
    assert names(tmp_path) == {"stack.tif"} | results("stack")


def test_what_exists_of_a_time_point_is_seen_before_voxels_are_read(
    cellrt, movie, tmp_path, unread
):
    (tmp_path / "movie.t2.c1.preview.png").write_text("old")
    done = cellrt("segment", movie, "--time", 2, "--channel", 1)
    refused(done, 3, "movie.t2.c1.preview.png exists already")
    refused(cellrt("segment", movie, "--time", 2, "--channel", 1, "-o", "x.csv"), 2, "TIFF")
    assert names(tmp_path) == {"movie.tif", "movie.t2.c1.preview.png"}


def test_many_time_points_sort_as_they_are_counted(cellrt, tmp_path):
    path = save(tmp_path / "long.tif", (12, 6, 16, 16), "TZYX")
    assert cellrt("segment", path, "--time", 3, "-q").code == 0
    assert "long.t03.labels.tif" in names(tmp_path)


def test_channels_called_alike_have_results_of_their_own(cellrt, tmp_path):
    path = tmp_path / "s.ome.tif"
    image = np.zeros((3, 8, 16, 16), np.uint8)
    called = ["a/b", "a:b", "561"]
    tifffile.imwrite(path, image, ome=True, metadata={"axes": "CZYX", "Channel": {"Name": called}})
    for channel in called:
        done = cellrt("segment", path, "--channel", channel, "-q")
        assert done.code == 0, done.err
    assert {n for n in names(tmp_path) if n.endswith("labels.tif")} == {
        "s.c1.labels.tif",
        "s.c2.labels.tif",
        "s.c3.labels.tif",
    }
    record = json.loads((tmp_path / "s.c2.run.json").read_text())
    assert record["input"]["channel"] == "a:b"
    # The same channel by its number has the same name.
    refused(cellrt("segment", path, "--channel", 1), 3, "s.c1.labels.tif exists already")


def test_arrays_in_a_file_never_share_results(cellrt, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    inside = ("g/raw", "g.raw", "g raw", "g:raw")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in inside:
            file[name] = np.zeros((8, 16, 16), np.uint8)
    for name in inside:
        done = cellrt("segment", f"{tmp_path}/x.h5:{name}", "-q")
        assert done.code == 0, done.err
    labels = {n for n in names(tmp_path) if n.endswith(".labels.tif")}
    assert len(labels) == 4
    assert "x.g.raw.labels.tif" in labels
    assert not any(set(name) & set(' :*?"<>|') for name in labels)


def test_no_preview_of_another_run_stays(cellrt, stack, tmp_path):
    preview = tmp_path / "stack.preview.png"
    assert cellrt("segment", stack, "-q").code == 0
    for path in tmp_path.glob("stack.[lcr]*"):
        path.unlink()
    refused(cellrt("segment", stack, "--no-preview"), 3, "stack.preview.png exists already")
    done = cellrt("segment", stack, "--no-preview", "--overwrite")
    assert done.code == 0, done.err
    assert not preview.exists()
    assert "preview.png" not in done.out
    assert names(tmp_path) == {"stack.tif"} | results("stack") - {preview.name}


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        ("h5", (":raw", "--series", "other"), "names another image"),
        ("npy", ("", "--series", "2"), "leave the series out"),
        ("npy", ("", "--series", "raw"), "leave the series out"),
    ],
)
def test_choices_that_contradict_the_file_are_refused(cellrt, tmp_path, make, words, message):
    path = tmp_path / f"b.{make}"
    image = np.zeros((8, 16, 16), np.uint8)
    if make == "h5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(path, "w") as file:
            file["raw"], file["other"] = image, image
    else:
        np.save(path, image)
    done = cellrt("segment", f"{path}{words[0]}", *words[1:])
    assert done.code in (2, 3)
    refused(done, done.code, message)
    assert names(tmp_path) == {path.name}


def test_a_format_from_outside_is_asked_for_no_series_that_it_has_not(tmp_path, monkeypatch):
    from cellrt.runtime.image import formats
    from cellrt.runtime.image.reading import read_volume
    from cellrt.runtime.image.stored import Stored

    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    formats.register_format("toy", [".toy"], lambda *_: Stored(np.zeros((4, 8, 8), np.uint8)))
    (tmp_path / "a.toy").write_text("toy")
    assert read_volume(tmp_path / "a.toy").shape == (4, 8, 8)
    with pytest.raises(UsageError, match="holds one image"):
        read_volume(tmp_path / "a.toy", series=2)


def test_the_address_in_the_record_can_be_given_again(cellrt, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(np.zeros((8, 24, 24), np.uint16), metadata={"axes": "ZYX"})
        tif.write(np.zeros((8, 20, 24), np.uint16), metadata={"axes": "ZYX"})
    assert cellrt("segment", tmp_path / "a.tif", "--series", 2, "-q").code == 0
    told = json.loads((tmp_path / "a.2.run.json").read_text())["input"]["path"]
    assert cellrt("segment", told, "--overwrite", "-q").code == 0
    assert names(tmp_path) == {"a.tif"} | results("a.2")


def test_the_same_array_may_be_named_twice(cellrt, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["raw"] = np.zeros((8, 16, 16), np.uint8)
    assert cellrt("segment", f"{tmp_path}/b.h5:raw", "--series", "raw", "-q").code == 0


def test_python_refuses_what_it_would_ignore(stack):
    cells = package.Segmenter("nuclei")
    image = np.zeros((8, 16, 16), np.uint8)
    with pytest.warns(CellrtWarning):
        volume = package.segment(image, diameter=16).volume
    for name, value in (("channel", 2), ("time", 1), ("series", 1), ("axes", "ZYX")):
        with pytest.raises(UsageError, match=f"{name} cannot be given with a volume"):
            package.segment(volume, **{name: value})
    with pytest.raises(UsageError, match="voxel_size cannot"):
        cells(volume, voxel_size=(1, 1, 1))
    with pytest.raises(UsageError, match="series cannot be given with an array"):
        cells(image, series=2)
    job = cells.prepare(image, diameter=16)
    with pytest.raises(UsageError, match="diameter cannot be given with a prepared job"):
        cells.predict(job, diameter=8)


@pytest.mark.filterwarnings("ignore::cellrt.errors.CellrtWarning")
def test_python_saves_under_the_same_names(movie, tmp_path):
    result = package.segment(movie, time=2, channel=1, diameter=16)
    assert set(result.save()) == {"labels", "cells", "preview", "run"}
    assert results("movie.t2.c1") <= names(tmp_path)
    paths = result.save(f"{tmp_path}/new/", preview=False)
    assert set(paths) == {"labels", "cells", "run"}
    assert names(tmp_path / "new") == results("movie.t2.c1") - {"movie.t2.c1.preview.png"}
    with pytest.raises(UsageError, match="expected NAME"):
        result.save(tmp_path / "x.png")
    with pytest.raises(UsageError, match="names no file"):
        result.save("")
    with pytest.raises(UsageError, match="zero byte"):
        result.save("a\0b.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(InputError, match="is a pipe"):
        result.save(tmp_path / "pipe.tif", overwrite=True)
    array = package.segment(np.zeros((8, 16, 16), np.uint8), diameter=16)
    with pytest.raises(UsageError, match="no file name"):
        array.save(f"{tmp_path}/new/")


ENDED = """
import signal, sys
from cellrt.cli.main import main
from cellrt.runtime import run

run.begin = lambda *arguments: signal.raise_signal(signal.SIGTERM)
main(["segment", sys.argv[1], "-o", sys.argv[2], "-q"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without a signal")
def test_what_a_batch_system_ends_leaves_nothing(tmp_path):
    stack = tmp_path / "s.npy"
    np.save(stack, np.random.default_rng(0).integers(0, 99, (4, 16, 16)).astype(np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", ENDED, stack, tmp_path / "out" / "a.tif"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert names(tmp_path) == {"s.npy"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
@pytest.mark.parametrize(
    ("name", "limit"),
    [("RLIMIT_AS", 9 << 26), ("RLIMIT_DATA", 9 << 25), ("RLIMIT_FSIZE", 4000)],
)
def test_limits_of_the_process_are_named_in_one_line(cellrt_process, tmp_path, name, limit):
    import resource

    np.save(tmp_path / "a.npy", np.zeros((8, 32, 32), np.uint8))

    def set_limit():
        resource.setrlimit(getattr(resource, name), (limit, limit))

    done = cellrt_process(
        "segment", tmp_path / "a.npy", "-q", preexec_fn=set_limit, env=os.environ, timeout=60
    )
    assert done.code == 5, done.err
    assert name in done.err
    assert done.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_memory_that_runs_out_while_a_file_is_read_is_no_damage(cellrt, tmp_path, monkeypatch):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 32, 32), np.uint8))
    for error in (MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")):

        def fail(*arguments, error=error, **known):
            raise error

        monkeypatch.setattr(tifffile.TiffFile, "__init__", fail)
        done = cellrt("segment", tmp_path / "a.tif", "-q")
        assert done.code == 5, done.err
        assert "memory" in done.err
        assert "damaged" not in done.err


def test_an_engine_without_memory_is_no_missing_engine(cellrt, tmp_path, monkeypatch):
    from cellrt.errors import EngineError
    from cellrt.runtime.network.engines import openvino

    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 99, (8, 32, 32)))

    def fail(*arguments, **known):
        raise EngineError("OpenVINO cannot load nuclei.onnx: can't alloc")

    monkeypatch.setattr(openvino.OpenVinoEngine, "load", fail)
    done = cellrt("segment", tmp_path / "a.npy", "--engine", "openvino", "--diameter", "16", "-q")
    assert done.code == 5, done.err
    assert "out of memory" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
