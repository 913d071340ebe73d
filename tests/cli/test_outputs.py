"""What other commands than ``segment`` do where their output, or an input, is no regular file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "nuclei.toml"


@pytest.fixture
def pipe(tmp_path):
    def make(name):
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    return make


def refused(done, code, *words):
    assert done.code == code, done.err
    (line,) = (line for line in done.err.splitlines() if line.startswith("cellrt: "))
    for word in words:
        assert word in line
    assert "Traceback" not in done.err


@pytest.mark.parametrize("ending", [".tif", ".truth.tif", ".json"])
def test_simulate_replaces_no_pipe(cellrt, tmp_path, pipe, ending):
    made = pipe(f"nuclei_001{ending}")
    done = cellrt("simulate", "nuclei", "-o", tmp_path, "--count", 2, "--overwrite")
    refused(done, 3, "is a pipe")
    assert [path.name for path in tmp_path.iterdir()] == [made.name]


@pytest.mark.parametrize("folder", ["pipe", "pipe/deep"])
def test_simulate_sees_before_it_draws_that_the_folder_is_none(
    cellrt, tmp_path, pipe, folder, monkeypatch
):
    from cellrt.simulation import styles

    monkeypatch.setattr(styles, "simulate_style", lambda *_, **__: pytest.fail("it was drawn"))
    pipe("pipe")
    refused(cellrt("simulate", "nuclei", "-o", tmp_path / folder), 3, "cannot make the folder")


def test_simulate_refuses_names_that_are_too_long_before_it_draws(cellrt, tmp_path):
    done = cellrt("simulate", "nuclei", "-o", tmp_path / "new", "--name", "n" * 243)
    refused(done, 2, "at most 255")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_export_replaces_no_pipe(cellrt, tmp_path, pipe, overwrite):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    made = pipe("a.onnx")
    done = cellrt("export", "nuclei", "--precision", "fp16", "-o", made, *overwrite)
    refused(done, 3, "is a pipe")
    assert made.is_fifo()


def test_export_sees_before_it_converts_that_the_folder_is_none(cellrt, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from cellrt.export import precision_variant

    monkeypatch.setattr(precision_variant, "make_variant", lambda *_, **__: pytest.fail("made"))
    (tmp_path / "file").write_text("mine")
    output = tmp_path / "file" / "a.onnx"
    done = cellrt("export", "nuclei", "--precision", "fp16", "-o", output)
    refused(done, 3, "cannot make the folder")


def test_export_waits_for_no_pipe(cellrt_process, tmp_path, pipe):
    pytest.importorskip("torch", reason="torch is not installed")
    words = ("export", pipe("a.ckpt"), "-o", tmp_path / "a.onnx")
    refused(cellrt_process(*words, timeout=120), 3, "no such checkpoint")


def test_train_wants_a_recipe_and_a_folder_that_can_be_read_and_made(
    cellrt_process, tmp_path, pipe
):
    pytest.importorskip("lightning", reason="lightning is not installed")
    refused(cellrt_process("train", pipe("a.toml"), timeout=120), 3, "is a pipe")
    (tmp_path / "file").write_text("mine")
    done = cellrt_process("train", RECIPE, "-o", tmp_path / "file", timeout=120)
    refused(done, 3, "cannot make the folder")
    pipe("last.ckpt")
    done = cellrt_process("train", RECIPE, "-o", tmp_path, timeout=120)
    refused(done, 3, "is a pipe")
    assert (tmp_path / "last.ckpt").is_fifo()


@pytest.mark.parametrize(
    "words",
    [
        ("export", "nuclei", "--precision", "fp16"),
        ("encode", "labels.tif"),
        ("decode", "shapes.csv"),
        ("build", "nuclei"),
    ],
)
@pytest.mark.parametrize("name", ["new/", "file.onnx/", "file.csv/", "file.tif/", "file.bundle/"])
def test_a_slash_at_the_end_means_a_folder_to_every_command(cellrt, tmp_path, words, name):
    done = cellrt(*words, "-o", f"{tmp_path}/{name}")
    refused(done, 2, f"{name} is a folder, and one file is written")
    assert not list(tmp_path.iterdir())
