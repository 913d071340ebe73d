"""Images and the service: what their files promise, and a run under the conditions of a container.

No container is built here. A run gets what one would: another user without a home or rights, no
network, and a file system that is read-only but for the cache, the data and /tmp.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
SERVICE = DEPLOY / "cellrt@.service"
CACHE = "/var/cache/cellrt"
NOBODY = 65534


def instructions(path):
    """Keyword and words of each instruction, with continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    joined = "\n".join(lines).replace("\\\n", "")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def words(path, keyword):
    return [text for found, text in instructions(path) if found == keyword]


def environment(path):
    """What ENV sets."""
    pairs = (pair for text in words(path, "ENV") for pair in shlex.split(text))
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.stem)
def dockerfile(request):
    return request.param


def test_there_is_an_image_for_a_pc_and_one_for_a_jetson():
    assert [path.name for path in DOCKERFILES] == ["cuda.Dockerfile", "jetpack.Dockerfile"]


def test_base_images_have_a_tag_that_stays(dockerfile):
    settings = dict(text.split("=", 1) for text in words(dockerfile, "ARG"))
    for image in words(dockerfile, "FROM"):
        image = image.split()[0].replace("${BASE}", settings["BASE"])
        assert re.search(r":[\w.-]*\d[\w.-]*$", image), image


def test_what_is_copied_is_in_the_source_and_is_sent_to_the_builder(dockerfile):
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in rules  # what is not named is not sent: no weights of others, no data
    copied = [text.split() for text in words(dockerfile, "COPY") if "--from=" not in text]
    assert copied
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in rules


def test_what_the_wheel_is_made_of_is_copied(dockerfile):
    copied = " ".join(words(dockerfile, "COPY")).split()
    assert {"cellrt", "pyproject.toml", "README.md", "LICENSE"} <= set(copied)


def test_it_runs_as_a_user_whose_cache_is_filled_and_a_volume(dockerfile):
    found = instructions(dockerfile)
    keywords = [keyword for keyword, _ in found]
    user = next(text for keyword, text in reversed(found) if keyword == "USER")
    assert user == "${UID}:${UID}"
    assert "UID=1000" in words(dockerfile, "ARG")
    # What is written into a volume after it was declared is lost.
    order = [keywords.index("ENV"), keywords.index("USER"), found.index(("RUN", "cellrt-warm"))]
    assert [*order, keywords.index("VOLUME")] == sorted([*order, keywords.index("VOLUME")])
    assert words(dockerfile, "VOLUME") == [CACHE]
    folders = [value for value in environment(dockerfile).values() if value.startswith("/var")]
    assert len(folders) == 3
    assert all(folder.startswith(f"{CACHE}/") for folder in folders)


def test_stopping_a_container_reaches_cellrt(dockerfile):
    (entry,) = words(dockerfile, "ENTRYPOINT")  # a shell would keep the signal to itself
    assert json.loads(entry) == ["cellrt"]


def test_what_was_compiled_in_the_image_is_found_by_another_processor(dockerfile, tmp_path):
    code = (
        "import sys, llvmlite.binding as llvm\n"
        "llvm.get_host_cpu_name = lambda: sys.argv[1]\n"
        "from cellrt.compiled import folders\n"
        "print(folders())"
    )
    image = {name: text for name, text in environment(dockerfile).items() if "NUMBA" in name}

    def asked(processor, environment):
        return subprocess.run(
            [sys.executable, "-c", code, processor],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert asked("znver5", image) == asked("skylake", image)
    assert asked("znver5", {}) != asked("skylake", {})


def test_hadolint_finds_nothing(dockerfile):
    beside = Path(sys.executable).parent
    program = shutil.which("hadolint", path=os.pathsep.join([str(beside), os.environ["PATH"]]))
    if program is None:
        pytest.skip("hadolint comes with the extra dev, on Linux")
    done = subprocess.run([program, dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def systemd(*options):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    return subprocess.run(
        ["systemd-analyze", *options, SERVICE], capture_output=True, text=True, check=False
    )


def test_systemd_understands_the_service():
    done = systemd("verify")
    assert done.returncode == 0
    # Of this unit: of the machine's own it has things to say as well.
    assert "cellrt@" not in done.stderr, done.stderr


def test_the_service_may_do_little():
    done = systemd("security", "--offline=true", "--threshold=15")  # of 100, the least exposed
    if "--offline" in done.stderr:
        pytest.skip("this systemd judges no files")
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_the_service_may_do_what_it_needs():
    text = SERVICE.read_text(encoding="utf-8")
    lines = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
    assert "MemoryDenyWriteExecute" not in lines  # nothing could be compiled
    # There would be no GPU; ProtectClock allows one device, and with that no others.
    assert not {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock"} & set(lines)
    assert lines["ExecStart"].startswith(":")  # else a $ in a name is replaced
    assert lines["ExecStart"].endswith("/cellrt segment %f")


# What a container gives to a run, done by root in a name space of its own: argv[1] is JSON.
CONTAINER = r"""
import json, os, subprocess, sys

asked = json.loads(sys.argv[1])

def mount(*words):
    subprocess.run(["mount", *words], check=True)

def writable_room(folder, mode="755"):
    mount("-t", "tmpfs", "-o", f"mode={mode},nosuid,nodev", "tmpfs", folder)

mount("--make-rprivate", "/")
# Mounts lie over the folders where some things are: those are kept aside first.
writable_room("/mnt")
needed = {}
for number, path in enumerate([*asked["needs"], *asked["volumes"], asked["programs"]]):
    aside = needed[path] = f"/mnt/aside/{number}"
    os.makedirs(aside)
    mount("--bind", path, aside)
os.umask(0o022)
# Before what is needed is shown again, as that may lie below it.
mount("-t", "tmpfs", "-o", "mode=1777,noexec,nosuid,nodev", "tmpfs", "/tmp")
for path in asked["needs"]:
    parts = path.split("/")
    for depth in range(2, len(parts)):
        parent = "/".join(parts[:depth])
        if not os.path.isdir(parent):  # hidden by what lies over one of its parents
            break
        if not os.stat(parent).st_mode & 1:  # a home that nobody else may enter
            writable_room(parent)
            break
    if not os.path.isdir(path):
        os.makedirs(path)
        mount("--bind", needed[path], path)
writable_room("/var/cache")
os.makedirs("/mnt/programs")
mount("--bind", needed[asked["programs"]], "/mnt/programs")
for path, place in asked["volumes"].items():
    os.makedirs(place)
    mount("--bind", needed[path], place)
for line in open("/proc/self/mounts").read().splitlines():
    place = line.split()[1]
    kept = ("/tmp", "/proc", "/sys", "/dev", *asked["writable"])
    below = any(place == path or place.startswith(path + "/") for path in kept)
    if place in asked["needs"] or not below:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], capture_output=True)
os.chdir("/mnt/data")
user = f"--reuid={asked['user']} --regid={asked['user']} --clear-groups".split()
rights = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
environment = asked["environment"]
os.execvpe("setpriv", ["setpriv", *user, *rights, *asked["words"]], environment)
"""


class Container:
    """A folder of programs, a cache and data, as an image and its volumes have them."""

    def __init__(self, folder):
        self.cache, self.data, self.programs = (folder / n for n in ("cache", "data", "programs"))
        for path in (self.cache, self.data, self.programs):
            path.mkdir()
        for path in (self.cache, self.data):
            os.chown(path, NOBODY, NOBODY)
        cellrt = self.programs / "cellrt"
        cellrt.write_text(f'#!/bin/sh\nexec {sys.executable} -m cellrt "$@"\n')
        cellrt.chmod(0o755)

    def run(self, *words, cache_is_writable=False):
        """Run a command in it, with the environment of the image for PCs."""
        settings = environment(DEPLOY / "cuda.Dockerfile")
        path = settings.pop("PATH").replace("/opt/cellrt/bin", "/mnt/programs")
        settings["PATH"] = path.replace("$PATH", os.defpath)
        settings |= {"HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
        # On some machines numpy's libraries need to be told which processor this is.
        settings |= {k: v for k, v in os.environ.items() if k.startswith("OPENBLAS_")}
        asked = {
            "needs": sorted({sys.base_prefix, sys.prefix, str(ROOT)}),
            "programs": str(self.programs),
            "volumes": {str(self.cache): CACHE, str(self.data): "/mnt/data"},
            "writable": ["/mnt/data", *([CACHE] if cache_is_writable else [])],
            "environment": settings,
            "user": NOBODY,
            "words": words,
        }
        apart = ["unshare", "--mount", "--net", sys.executable, "-c", CONTAINER]
        return subprocess.run(
            [*apart, json.dumps(asked)], capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """A container whose cache was filled as the image's is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("name spaces and other users take root, on Linux")
    if not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("util-linux is not here")
    if not ROOT.stat().st_mode & 1:
        pytest.skip("other users may not enter the folder of the source")
    room = ["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    allowed = subprocess.run(room, capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"no container can be played here: {allowed.stderr.strip()}")
    made = Container(tmp_path_factory.mktemp("container"))
    tried = made.run("sh", "-c", "id -u; touch /mnt/data/yes; touch /mnt/no || touch /usr/no")
    assert tried.returncode != 0
    assert (made.data / "yes").exists(), tried.stderr
    assert tried.stdout.split() == [str(NOBODY)]
    assert tried.stderr.count("Read-only file system") == 2, tried.stderr
    filled = made.run("sh", str(DEPLOY / "warm"), cache_is_writable=True)
    assert filled.returncode == 0, filled.stderr
    assert list(made.cache.rglob("*.kernel"))  # else nothing below says anything
    return made


SPHERES = np.linalg.norm(np.indices((24, 40, 40)) % 20 - 10, axis=0) < 7


def stack(folder, name, dtype, shape=SPHERES.shape, **metadata):
    """Bright balls with noise, as a file of some type."""
    noise = np.random.default_rng(0).normal(40, 5, shape)
    image = noise + 150 * SPHERES[tuple(slice(size) for size in shape)]
    tifffile.imwrite(folder / name, image.astype(dtype), metadata={"axes": "ZYX"}, **metadata)
    os.chmod(folder / name, 0o644)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("uint8", ["--voxel-size", "0.5", "0.5", "0.5"]),
        ("uint16", ["--voxel-size", "0.9", "0.3", "0.3"]),
        ("float32", ["--diameter", "14"]),
        ("uint16", ["--diameter", "14", "--model", "membranes"]),
        ("uint16", ["--voxel-size", "0.7", "0.4", "0.4", "--model", "membranes-3dcellseg"]),
        ("uint8", []),
        ("uint16", ["--model", "nuclei-cellpose2d"]),
        ("uint16", ["--model", "nuclei2d", "--slices", "--diameter", "14"]),
        ("uint16", ["--min-confidence", "0.1", "--min-size", "10", "--max-size", "1e5"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_the_image_was_filled_with_is_all_that_a_run_needs(container, dtype, words):
    name = f"stack{len(list(container.data.iterdir()))}"
    stack(container.data, f"{name}.tif", dtype)
    done = container.run("cellrt", "segment", f"{name}.tif", *words)
    assert done.returncode == 0, done.stderr
    # Neither is something compiled nor can something not be kept.
    assert "compil" not in done.stderr, done.stderr
    for result in ("labels.tif", "cells.csv", "preview.png", "run.json"):
        written = (container.data / f"{name}.{result}").stat()
        assert written.st_uid == NOBODY
        assert written.st_mode & stat.S_IRUSR
    record = json.loads((container.data / f"{name}.run.json").read_text(encoding="utf-8"))
    assert not [text for text in record["warnings"] if "kept" in text or "compil" in text]
    assert sorted(path.name for path in container.data.iterdir() if path.name[0] == ".") == []


def test_the_preflight_of_a_container(container):
    done = container.run("cellrt", "doctor")
    assert done.returncode == 0, done.stderr
    assert f"kernels: compiled, in {CACHE}/kernels" in done.stdout


def test_a_folder_that_cannot_be_written_is_one_line(container):
    stack(container.data, "elsewhere.tif", "uint8")
    done = container.run("cellrt", "segment", "elsewhere.tif", "-o", "/usr/local/cells.tif")
    assert done.returncode == 3
    assert "cannot write to /usr/local" in done.stderr.splitlines()[-1]
