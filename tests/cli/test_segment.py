"""``cellrt segment`` as a user runs it: results, refusals, and nothing left behind."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from cellrt.simulation import ImagingParameters, NucleiParameters, simulate_nuclei

RESULTS = {"stack.labels.tif", "stack.cells.csv", "stack.preview.png", "stack.run.json"}


@pytest.fixture(scope="module")
def nuclei():
    """A small simulated stack and its truth."""
    return simulate_nuclei(
        (32, 64, 64), nuclei=NucleiParameters(), imaging=ImagingParameters(), seed=11
    )


@pytest.fixture
def stack(tmp_path, nuclei):
    """The stack as an ImageJ file with a voxel size at which nuclei have the model's size."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path,
        nuclei.image,
        imagej=True,
        resolution=(1 / 0.5, 1 / 0.5),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 0.5},
    )
    return path


@pytest.mark.parametrize("words", [["", "-q"], ["STACK", "-o", "", "-q"]])
def test_an_empty_path_is_refused(cellrt, stack, words):
    done = cellrt("segment", *(stack if word == "STACK" else word for word in words))
    assert done.code == 2
    assert "names no file" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("--param", "foreground_treshold=0.5"),
        ("--param", "foreground_threshold=7"),
        ("--intensity", "9", "2"),
        ("--decoder", "tascan"),
    ],
)
def test_what_no_image_could_make_right_is_refused_before_it_is_read(cellrt, stack, words):
    done = cellrt("segment", stack, *words)
    assert done.code in (2, 3)
    assert "Reading" not in done.err
    assert {p.name for p in stack.parent.iterdir()} == {"stack.tif"}


def test_results_stand_beside_the_stack_and_agree(cellrt, stack):
    done = cellrt("segment", stack, "--diameter", "16")
    assert done.code == 0, done.err
    assert {p.name for p in stack.parent.iterdir()} == {"stack.tif"} | RESULTS
    with tifffile.TiffFile(stack.parent / "stack.labels.tif") as tif:
        labels = tif.asarray()
        assert tif.is_imagej
        assert tif.imagej_metadata["spacing"] == pytest.approx(0.5)
    with (stack.parent / "stack.cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    record = json.loads((stack.parent / "stack.run.json").read_text(encoding="utf-8"))
    assert labels.shape == (32, 64, 64)
    assert len(rows) == record["cells"] == labels.max() > 3
    assert record["engine"]["name"] == "openvino"
    assert record["input"]["voxel_size_um"] == pytest.approx([0.5, 0.5, 0.5])
    assert set(record["seconds"]) >= {"read", "network", "cells", "measure", "write"}
    assert f"{len(rows)} cells" in done.out


def test_the_output_name_moves_all_results(cellrt, stack, tmp_path):
    done = cellrt("segment", stack, "--diameter", 16, "-o", tmp_path / "out" / "labels.tif", "-q")
    assert done.code == 0, done.err
    assert done.out == ""
    found = {p.name for p in (tmp_path / "out").iterdir()}
    assert found == {"labels.tif", "labels.cells.csv", "labels.preview.png", "labels.run.json"}


def test_json_events_are_one_object_a_line(cellrt, stack):
    done = cellrt("segment", stack, "--diameter", 16, "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [e["event"] for e in events]
    assert kinds[-1] == "result"
    assert {"stage", "progress", "note"} <= set(kinds)
    progress = [e for e in events if e["event"] == "progress"][-1]
    assert progress["done"] == progress["total"]
    assert set(events[-1]["files"]) == {"labels", "cells", "preview", "run"}


def test_a_dry_run_plans_and_writes_nothing(cellrt, stack):
    done = cellrt("segment", stack, "--diameter", 16, "--dry-run")
    assert done.code == 0, done.err
    for word in ("tiles", "memory", "engine", "time", "OpenVINO", "openvino"):
        assert word in done.out
    # As much as one knows of a run: what is computed in, with which file.
    assert re.search(r"^precision +(fp32|bf16)$", done.out, re.MULTILINE)
    assert "nuclei (nuclei.onnx), sha256" in done.out
    assert [p.name for p in stack.parent.iterdir()] == ["stack.tif"]


def test_a_precision_that_cannot_be_had_is_refused_before_the_stack_is_read(cellrt, stack):
    for precision in ("fp16", "tf32"):
        done = cellrt("segment", stack, "-m", "nuclei", "--precision", precision)
        assert (done.code, done.err.count("\n")) == (4, 1)
        assert f"no engine here computes nuclei with --precision {precision}" in done.err


def test_existing_results_are_kept_unless_told_otherwise(cellrt, stack):
    mine = stack.parent / "stack.cells.csv"
    mine.write_text("my own notes")
    done = cellrt("segment", stack, "--diameter", 16)
    assert done.code == 3
    assert "--overwrite" in done.err
    assert mine.read_text(encoding="utf-8") == "my own notes"
    assert {p.name for p in stack.parent.iterdir()} == {"stack.tif", "stack.cells.csv"}
    assert cellrt("segment", stack, "--diameter", 16, "--overwrite").code == 0
    assert mine.read_text(encoding="utf-8") != "my own notes"


def save(path, array, **options):
    """Write a TIFF and return its path."""
    tifffile.imwrite(path, array, **options)
    return path


def truncated(path):
    """Cut a good file in half."""
    save(path, np.random.default_rng(0).integers(0, 99, (8, 64, 64)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:9000])
    return path


def with_nan(value):
    """Make a stack with one bad voxel."""
    stack = np.ones((8, 32, 32), np.float32)
    stack[4, 4, 4] = value
    return stack


BAD_FILES = {
    "missing": (lambda p: p, "no such file|not found|does not exist"),
    "folder": (lambda p: p.mkdir() or p, "folder|directory"),
    "text": (lambda p: p.write_text("hello") and p, "not a TIFF|no TIFF|TIFF"),
    "truncated": (truncated, "truncated|damaged|incomplete"),
    "complex": (lambda p: save(p, np.ones((4, 8, 8), np.complex64)), "complex"),
    "nan": (lambda p: save(p, with_nan(np.nan)), "NaN"),
    "infinite": (lambda p: save(p, with_nan(np.inf)), "infinite|inf"),
    "channels": (
        lambda p: save(p, np.ones((6, 3, 16, 16), np.uint8), imagej=True),
        "channel",
    ),
    "times": (
        lambda p: save(
            p, np.ones((3, 6, 16, 16), np.uint8), imagej=True, metadata={"axes": "TZYX"}
        ),
        "--time",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_and_code_3(cellrt, tmp_path, case):
    make, message = BAD_FILES[case]
    path = make(tmp_path / "bad.tif")
    before = sorted(p.name for p in tmp_path.iterdir())
    done = cellrt("segment", path)
    assert done.code == 3, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("cellrt: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.err
    assert re.search(message, lines[0], re.IGNORECASE), lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--voxel-size", "0", "1", "1"], 2, "voxel-size"),
        (["--voxel-size", "nan", "1", "1"], 2, "voxel-size"),
        (["--voxel-size", "200", "0.001", "0.001"], 2, "check --voxel-size 200 0.001 0.001"),
        (["--diameter", "-4"], 2, "--diameter"),
        (["--model", "unheard-of"], 3, "cellrt models"),
        (["--engine", "abacus"], 2, "openvino"),
        (["--precision", "fp7"], 2, "fp32"),
        (["--channel", "9"], 3, "channel"),
        (["--axes", "QYX"], 3, "axes"),
        (["--tile", "16", "16", "16", "--diameter", "4"], 2, "tile"),
        (["--no-such-option"], 2, "no-such-option"),
        (["--voxel-size", "1"], 2, "voxel-size"),
    ],
)
def test_bad_options_are_one_line_with_the_documented_code(cellrt, stack, options, code, message):
    done = cellrt("segment", stack, *options)
    assert done.code == code, done.err
    assert message.lower() in done.err.lower()
    assert len(done.err.strip().splitlines()) <= 6
    assert "Traceback" not in done.err
    assert [p.name for p in stack.parent.iterdir()] == ["stack.tif"]


def test_blank_and_constant_images_give_no_cells_and_a_warning(cellrt, tmp_path):
    for value in (0, 100):
        path = save(tmp_path / f"blank{value}.tif", np.full((16, 32, 32), value, np.uint8))
        done = cellrt("segment", path)
        assert done.code == 0, done.err
        assert "warning" in done.err
        assert "0 cells" in done.out
        assert "no cells were found" not in done.err  # there is nothing that a size would change
        assert tifffile.imread(tmp_path / f"blank{value}.labels.tif").max() == 0


@pytest.mark.parametrize("shape", [(5, 9, 7), (1, 1, 1), (2, 300, 3)])
def test_stacks_smaller_than_a_tile_are_like_any_other(cellrt, tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    path = save(tmp_path / "tiny.tif", image, imagej=True, metadata={"axes": "ZYX"})
    done = cellrt("segment", path, "--diameter", 16)
    assert done.code == 0 or "one slice" in done.err, done.err


def test_ctrl_c_leaves_nothing_behind(tmp_path, nuclei):
    image = np.tile(nuclei.image, (3, 4, 4))
    path = save(tmp_path / "stack.tif", image, imagej=True, metadata={"axes": "ZYX"})
    command = [sys.executable, "-m", "cellrt", "segment", str(path), "--diameter", "16", "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background inherits "ignore Ctrl-C"; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stdout:
        if '"progress"' in line or '"name": "network"' in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("cellrt: interrupted")
    assert [p.name for p in tmp_path.iterdir()] == ["stack.tif"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux' /dev/full")
def test_a_full_disk_is_code_5_and_leaves_nothing(cellrt, stack, monkeypatch):
    import shutil

    real = shutil.disk_usage

    def full(path):
        return real(path)._replace(free=10)

    monkeypatch.setattr(shutil, "disk_usage", full)
    done = cellrt("segment", stack, "--diameter", 16)
    assert done.code == 5
    assert "disk" in done.err
    assert [p.name for p in stack.parent.iterdir()] == ["stack.tif"]


def test_too_little_memory_is_code_5_before_anything_is_computed(cellrt, stack, monkeypatch):
    from cellrt.limits import Memory
    from cellrt.runtime import plan

    monkeypatch.setattr(plan, "free_memory", lambda: Memory(10**7, 10**7, "the machine"))
    done = cellrt("segment", stack, "--diameter", 16)
    assert done.code == 5
    assert "GB" in done.err
    assert [p.name for p in stack.parent.iterdir()] == ["stack.tif"]


def test_an_engine_that_cannot_be_had_is_code_4(cellrt, stack, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = cellrt("segment", stack, "--engine", "onnxruntime")
    assert done.code == 4
    assert "pip install" in done.err


def test_the_runtime_works_with_everything_optional_blocked(stack, tmp_path):
    """``segment`` needs the base install and nothing else."""
    blocker = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'lightning', 'monai', 'h5py',\n"
        "             'zarr', 'matplotlib', 'sklearn', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "from cellrt.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocker, "segment", str(stack), "--diameter", "16"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stack.labels.tif").exists()


def test_help_imports_nothing_heavy(cellrt_process):
    code = (
        "import sys\n"
        "from cellrt.cli.main import _run\n"
        "_run(['--help'], debug=False)\n"
        "heavy = {'numpy', 'numba', 'openvino', 'onnxruntime', 'skimage', 'torch'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
    assert "segment" in done.stdout


@pytest.mark.parametrize("ending", [".h5", ".zarr", ".npz"])
def test_an_array_inside_a_file_gives_results_beside_the_file(cellrt, tmp_path, ending):
    image = np.zeros((8, 24, 24), np.uint16)
    path = tmp_path / f"v{ending}"
    if ending == ".npz":
        np.savez(path, **{"volumes/raw": image})
    elif ending == ".h5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(path, "w") as file:
            file["volumes/raw"] = image
    else:
        zarr = pytest.importorskip("zarr", reason="zarr is not installed")
        zarr.open_group(str(path), mode="w")["volumes/raw"] = image
    done = cellrt("segment", f"{path}:volumes/raw", "--diameter", "8")
    assert done.code == 0, done.err
    names = {p.name for p in tmp_path.iterdir()} - {path.name}
    endings = (".labels.tif", ".cells.csv", ".preview.png", ".run.json")
    assert names == {f"v.volumes.raw{ending}" for ending in endings}
    record = json.loads((tmp_path / "v.volumes.raw.run.json").read_text(encoding="utf-8"))
    assert record["input"]["path"] == f"{path}:volumes/raw"


def test_one_of_several_images_is_chosen_by_its_number(cellrt, tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.zeros((8, 24, 24), np.uint16), metadata={"axes": "ZYX"})
        tif.write(np.zeros((8, 20, 24), np.uint16), metadata={"axes": "ZYX"})
    done = cellrt("segment", path, "--diameter", "8")
    assert done.code == 3
    assert "--series 1 to --series 2" in done.err
    assert cellrt("segment", path, "--diameter", "8", "--series", "2").code == 0
    assert tifffile.imread(tmp_path / "a.2.labels.tif").shape == (8, 20, 24)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nowhere.tif",), 3, "nowhere.tif does not exist"),
        (("{stack}", "-o", "labels.png"), 2, "expected NAME.tif"),
        (("{stack}", "-o", "{stack}/labels.tif"), 3, "cannot make the folder"),
        (("{stack}",), 4, "--engine tensorrt cannot be had here"),
    ],
)
def test_what_is_wrong_with_the_words_is_told_before_what_the_machine_lacks(
    cellrt, stack, monkeypatch, words, code, said
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = cellrt("segment", *(word.format(stack=stack) for word in words), "--engine", "tensorrt")
    assert (done.code, said in done.err) == (code, True), done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_precision_that_an_engine_lacks_is_refused_before_the_stack_is_read(cellrt, stack):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    done = cellrt("segment", stack, "--engine", "onnxruntime", "--precision", "BF16")
    assert done.code == 4
    (line,) = done.err.strip().splitlines()
    assert "use --engine openvino for bf16" in line


def test_a_precision_of_gpus_is_refused_in_a_line_that_is_read(cellrt, stack, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = cellrt("segment", stack, "--precision", "fp16")
    assert done.code == 4
    (line,) = done.err.strip().splitlines()
    assert "tensorrt, tensorrt-rtx, onnxruntime-cuda: CUDA_VISIBLE_DEVICES hides all GPUs" in line
    assert line.endswith("use --precision auto")
    assert len(line) < 280
