"""Every extra can be installed on every Python and processor that cellrt is for.

uv resolves for interpreters and processors that are not here; pip evaluates markers for its own
only, and is asked about this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from cellrt.runtime.machine.gpu import FIRST_NUMPY_TOO_NEW

PROJECT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PROCESSORS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_35"}
# What is for the GPU must not stand beside what is for CPUs, nor CUDA 13 beside CUDA 12.
TOGETHER = (
    ("cu12",),
    ("cu13",),
    ("cuda",),
    ("tensorrt",),
    ("tensorrt-lean",),
    ("tensorrt-rtx",),
    (
        *("codecs", "dbscan", "hdf5", "zarr", "onnxruntime", "precision", "rois"),
        *("train", "benchmarks", "dev"),
    ),
)
FOR_GPUS = TOGETHER[:-1]
# What nobody should have to compile. TensorRT's packages are not among them: some are sources that
# fetch their maker's wheel while they are installed. Nor is numcodecs, of zarr: for Python 3.10 on
# ARM it has to be compiled.
WHEELS = (
    *("numpy", "numba", "llvmlite", "scipy", "scikit-image", "pillow", "psutil", "openvino"),
    *("numba-cuda", "cuda-bindings", "cuda-core", "onnxruntime-gpu", "onnxruntime", "onnx"),
    *("imagecodecs", "scikit-learn", "h5py", "torch", "pydantic-core"),
)


def extras():
    """The extras of this source, each with its requirements."""
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    found = toml.loads(text)["project"]["optional-dependencies"]
    return {name: [Requirement(line) for line in lines] for name, lines in found.items()}


def test_no_extra_is_left_out_here():
    assert sorted(name for names in TOGETHER for name in names) == sorted(extras())


def test_kernels_come_with_the_numpy_they_compile_with():
    known = extras()
    for name, requirements in known.items():
        if any(requirement.name == "numba-cuda" for requirement in requirements):
            (cap,) = (r for r in requirements if r.name == "numpy")
            assert not cap.specifier.contains(FIRST_NUMPY_TOO_NEW), name
            assert cap.specifier.contains("2.4.6"), name
    for (name,) in FOR_GPUS:
        own = [r for r in known[name] if r.name in ("cellrt", "numba-cuda")]
        assert own, name
        # hatchling drops the marker of a line that names an extra of the project's own.
        assert not any(r.name == "cellrt" and r.marker for r in own), name


def run(*words, text=None):
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def resolve(*words, text=None):
    """Ask uv what it would install."""
    pytest.importorskip("uv", reason="uv comes with the extra dev")
    options = ["--no-header", "--no-annotate", "--quiet", "--no-python-downloads"]
    return run("uv", "pip", "compile", *words, *options, text=text)


@pytest.fixture(scope="module")
def _index():
    """The package index, if it answers."""
    tried = resolve("-", "--no-cache", text="filelock\n")
    if tried.returncode:
        pytest.skip(f"the package index does not answer: {tried.stderr.strip().splitlines()[-1]}")


@pytest.mark.index
@pytest.mark.usefixtures("_index")
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("names", TOGETHER, ids="+".join)
def test_it_resolves(names, python, processor):
    chosen = [word for name in names for word in ("--extra", name)]
    wheels = [word for name in WHEELS for word in ("--only-binary", name)]
    target = ["--python-version", python, "--python-platform", PROCESSORS[processor]]
    done = resolve("pyproject.toml", *chosen, *target, *wheels)
    assert done.returncode == 0, done.stderr
    found = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    if names not in FOR_GPUS:
        return
    assert Version(found["numpy"]) < Version(FIRST_NUMPY_TOO_NEW)
    old = python == "3.10" and names == ("cuda",)
    major = "12" if names == ("cu12",) or old else "13"
    assert found["cuda-bindings"].split(".")[0] == major
    if names == ("cuda",):
        assert ("onnxruntime-gpu" in found) == (not old or processor == "x86_64")
        assert not any(package.endswith("-cu12") for package in found) or major == "12"


@pytest.mark.index
@pytest.mark.usefixtures("_index")
@pytest.mark.parametrize("names", [("cuda", "tensorrt-rtx"), ("cu12",)], ids="+".join)
def test_pip_resolves_it_here(names, tmp_path):
    report = tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    done = run("pip", "install", *options, f"{PROJECT}[{','.join(names)}]")
    assert done.returncode == 0, done.stderr
    found = {
        item["metadata"]["name"].lower(): item["metadata"]["version"]
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    assert np.lib.NumpyVersion(found["numpy"]) < FIRST_NUMPY_TOO_NEW
