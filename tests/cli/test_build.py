"""``cellrt build``: as a user runs it, with TensorRT-RTX ahead of time."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import zipfile

import numpy as np
import pytest
import tifffile

from cellrt.runtime.model.file import bundled_models, open_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLRT_ENGINES", str(tmp_path / "engines"))


def test_it_builds_lists_finds_again_and_clears(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    done = cellrt("build", "nuclei", "--target", "sm89", "--target", "sm120")
    assert done.code == 0, done.err
    assert "there is none yet" in done.err
    (engine,) = (tmp_path / "engines").glob("*.engine")
    assert str(engine) in done.out

    again = cellrt("build", "nuclei", "--target", "sm120", "--target", "sm89")
    assert again.code == 0
    assert "building" not in again.err
    assert again.out == done.out

    listed = cellrt("build", "--list")
    assert "nuclei fp16, tensorrt-rtx" in listed.out
    assert "sm89+sm120" in listed.out
    assert "1 engine in" in listed.out

    assert "1 engine removed" in cellrt("build", "--clear").out
    assert "0 engines in" in cellrt("build", "--list").out


def test_each_precision_is_an_engine_of_its_own_and_tf32_is_not_called_fp32(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    for words in ((), ("--precision", "tf32"), ("--precision", "fp32")):
        done = cellrt("build", "nuclei", "--target", "sm89", *words)
        assert done.code == 0, done.err
    assert "it computes in tf32, not in fp32" in done.err
    assert "model file" not in done.err
    sizes = {p.name.split("-")[1]: p.stat().st_size for p in tmp_path.glob("engines/*.engine")}
    assert set(sizes) == {"fp16", "tf32", "fp32"}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


def test_a_precision_that_nobody_has_made_is_refused_with_the_command(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    done = cellrt("build", "nuclei", "--precision", "int8")
    assert done.code == 4
    assert "run `cellrt export nuclei --precision int8 -o nuclei-int8.onnx`" in done.err
    assert not list(tmp_path.glob("engines/*.engine"))


def test_a_model_without_an_fp16_file_is_built_in_tf32_and_the_command_said(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(bundled_models()["nuclei"].read_bytes())
    done = cellrt("build", mine)
    assert done.code == 0, done.err
    assert f"run `cellrt export {mine} --precision fp16`" in done.err
    assert "in tf32: there is none yet" in done.err


def test_a_bundle_has_the_engine_its_model_and_their_hashes(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    bundle = tmp_path / "engine.bundle"
    done = cellrt("build", "nuclei", "--target", "sm89", "-o", bundle)
    assert done.code == 0, done.err
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() in done.out
    with zipfile.ZipFile(bundle) as archive:
        record = json.loads(archive.read("record.json"))
        (engine,) = tmp_path.glob("engines/*.engine")
        assert archive.read("engine") == engine.read_bytes()
        assert record["engine_sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
        assert archive.read("model.onnx") == open_model("nuclei").variant("fp16").content
    assert record["key"]["compute_capability"] == "sm89"
    first = bundle.read_bytes()
    again = cellrt("build", "nuclei", "--target", "sm120", "-o", bundle)
    assert again.code == 3
    assert "--overwrite" in again.err
    assert len(list(tmp_path.glob("engines/*.engine"))) == 1  # refused before it was built
    assert bundle.read_bytes() == first
    assert cellrt("build", "nuclei", "--target", "sm89", "-o", bundle, "--overwrite").code == 0
    assert bundle.read_bytes() == first


def test_a_bundle_without_a_gpu_says_so_and_leaves_nothing(cellrt, tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    bundle, stack = tmp_path / "engine.bundle", tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.zeros((5, 8, 8), np.uint16))
    assert cellrt("build", "nuclei", "--target", "SM89", "-o", bundle).code == 0
    done = cellrt("segment", stack, "--engine-file", bundle)
    assert done.code == 4
    assert "engine.bundle was built for sm89 (GPUs of compute capability 8.9)" in done.err
    assert "CUDA_VISIBLE_DEVICES hides all GPUs; take that variable out" in done.err
    assert "leave --engine-file out to use the CPU" in done.err
    assert not list((tmp_path / "temporary").iterdir())
    for words, code, said in (
        ((tmp_path / "other.tif",), 3, "does not exist"),
        ((stack, "-o", tmp_path / "labels.png"), 2, "expected NAME.tif"),
    ):
        done = cellrt("segment", *words, "--engine-file", bundle)
        assert (done.code, said in done.err) == (code, True), done.err


def damaged(bundle, way):
    content = {"text": b"hello", "empty": b"", "half": bundle.read_bytes()[:100_000]}
    if way in content:
        bundle.write_bytes(content[way])
        return
    if way == "folder":
        bundle.unlink()
        bundle.mkdir()
        return
    with zipfile.ZipFile(bundle) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if way in ("engine", "model.onnx"):
        parts[way] = parts[way][:-1] + b"?"
    elif way == "missing":
        del parts["engine"]
    elif way == "other":
        parts = {"word/document.xml": b"<xml/>"}
    elif way == "list":
        parts["record.json"] = b"[]"
    else:
        record = json.loads(parts["record.json"])
        record["format" if way == "format" else "key"] = {"format": 9, "key": {"model": "x"}}[way]
        parts["record.json"] = json.dumps(record).encode()
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("text", "is something else than an engine"),
        ("empty", "is empty"),
        ("half", "is damaged, or not all of it is there"),
        ("folder", "is a folder"),
        ("other", "is an archive of something else"),
        ("list", "the record in engine.bundle is not as it was written"),
        ("engine", "its engine is not the one whose hash was recorded"),
        ("model.onnx", "its model.onnx is not the one"),
        ("missing", "is an archive of something else, without engine"),
        ("format", "format 9"),
        ("key", "the record in engine.bundle is not as it was written"),
    ],
)
def test_a_bundle_that_is_not_as_it_was_written_is_refused(cellrt, tmp_path, way, words):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    bundle = tmp_path / "engine.bundle"
    assert cellrt("build", "nuclei", "-o", bundle, "--quiet").code == 0
    damaged(bundle, way)
    done = cellrt("segment", "stack.tif", "--engine-file", bundle)
    assert done.code == 3
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "`cellrt build -o`" in done.err or "again" in done.err
    assert not re.search(r"\w+Error|BadZip|Exception", done.err)


@pytest.mark.parametrize("words", [("--engine", "tensorrt-rtx"), ("--model", "membranes")])
def test_what_a_bundle_brings_along_is_not_to_be_given(cellrt, words):
    done = cellrt("segment", "stack.tif", "--engine-file", "engine.bundle", *words)
    assert done.code == 2
    assert f"leave {words[0]} out" in done.err


def test_quiet_prints_nothing(cellrt):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    done = cellrt("build", "nuclei", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "give a model to build"),
        (("nuclei", "--list"), 2, "give a model to build"),
        (("--list", "--clear"), 2, "give a model to build"),
        (("nuclei", "--engine", "openvino"), 2, "choose from tensorrt, tensorrt-rtx"),
        (("nuclei", "--batch", "0"), 2, "batch"),
        (("nuclei", "--precision", "int4"), 2, "choose one of auto, fp32, tf32, fp16"),
        (("no_such_model",), 3, "no model"),
        (("nuclei", "--tile", "64", "96", "90"), 2, "multiples of 8"),
        (("nuclei", "--tile", "0", "96", "96"), 2, "multiples of 8"),
        (("--list", "-o", "engine.bundle"), 2, "-o needs a model"),
        (("nuclei", "-o", "no/such/model\0.bundle"), 2, "zero byte"),
        (("nuclei", "--target", "sm89", "--engine", "tensorrt"), 2, "not for a --target"),
        (("nuclei", "-o", ""), 2, "names no file"),
        (("nuclei", "-o", "new/"), 2, "new/ is a folder"),
        (("nuclei", "-o", "engine.bundle/"), 2, "engine.bundle/ is a folder"),
        (("nuclei", "-o", "engine"), 2, "does not end in .bundle"),
    ],
)
def test_bad_input_ends_with_one_line_and_its_code(cellrt, tmp_path, arguments, code, words):
    done = cellrt("build", *arguments)
    assert done.code == code
    assert words in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert not list(tmp_path.glob("engines/*.engine"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--workspace", "0"), 2, "expected more than 0"),
        (("--workspace", "1e12"), 2, "at most 300 GB"),
        (("--workspace", "1e300"), 2, "expected a number of GB"),
        (("--tile", "4096", "4096", "4096"), 2, "smaller --tile or --batch"),
        (("--batch", "1000000"), 2, "smaller --tile or --batch"),
        (("--lean",), 2, "no lean runtime"),
        (("--target", "sm75", "--precision", "tf32"), 4, "none in tf32; use --precision fp16"),
        (("--target", "sm75", "--precision", "fp32"), 4, "none in fp32; use --precision fp16"),
        (("--precision", "int8"), 4, "no nuclei.int8.onnx"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_told(
    cellrt, tmp_path, arguments, code, words
):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    done = cellrt("build", "nuclei", "--engine", "tensorrt-rtx", *arguments)
    assert (done.code, words in done.err) == (code, True), done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("engines/*"))


def test_a_model_without_a_file_for_turing_is_refused_with_the_command_alone(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(bundled_models()["nuclei"].read_bytes())
    done = cellrt("build", mine, "--target", "sm75")
    assert done.code == 4
    (line,) = done.err.strip().splitlines()
    assert f"`cellrt export {mine} --precision fp16`" in line


def test_too_small_a_workspace_is_told_with_what_helps(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    done = cellrt("build", "nuclei", "--workspace", "0.0001")
    assert done.code == 5
    assert "--workspace 0.0001 is too little for its layers; give more" in done.err
    assert "another --engine" not in done.err
    assert not list(tmp_path.glob("engines/*.engine"))


def test_names_of_engines_targets_and_precisions_count_in_capitals_too(cellrt, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    words = ("--engine", "TensorRT-RTX", "--target", "SM89", "--precision", "FP16")
    assert cellrt("build", "nuclei", *words).code == 0
    again = cellrt("build", "nuclei", *map(str.lower, words))
    assert "building" not in again.err
    assert len(list(tmp_path.glob("engines/*.engine"))) == 1


def test_without_any_library_the_code_is_4(cellrt, monkeypatch):
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    done = cellrt("build", "nuclei")
    assert done.code == 4
    assert "pip install 'cellrt[tensorrt-rtx]'" in done.err


def test_a_cache_folder_that_cannot_be_made_ends_with_5(cellrt, tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CELLRT_ENGINES", str(tmp_path / "file" / "engines"))
    done = cellrt("build", "nuclei")
    assert done.code == 5
    assert "CELLRT_ENGINES" in done.err
