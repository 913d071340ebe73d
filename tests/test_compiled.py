"""Compiled kernels on disk, in processes of their own, as a user starts them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cellrt

PACKAGE = Path(cellrt.__file__).parent
# One small kernel: relabel([0, 1, 2, 1], [0, 7, 9]).
USE = """
import numpy as np
from cellrt.compiled import announced, complaint, keeping
from cellrt.runtime.decoding.labels.regions import relabel
labels, said = np.array([[[0, 1, 2, 1]]], np.int32), []
with announced(said.append):
    relabel(labels, np.array([0, 7, 9], np.int32))
assert labels.ravel().tolist() == [0, 7, 9, 7]
import json
print(json.dumps({"complaint": complaint(), "compiled": bool(said), "keeping": keeping()}))
"""


def use(cache, code=USE, **environment):
    """Use a kernel in a new process; return what it says of its cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kernels(cache):
    return sorted(cache.rglob("*.kernel"))


# As in a container whose user may write nothing.
NOWHERE = f"""
import cellrt.compiled as c
c._PACKAGE = c.Path("/proc/no/package")
{USE}"""


def test_a_kernel_is_compiled_once(tmp_path):
    first, second = use(tmp_path), use(tmp_path)
    assert (first["compiled"], second["compiled"]) == (True, False)
    assert first["complaint"] == second["complaint"] == ""
    assert second["keeping"] == [True, f"compiled, in {kernels(tmp_path)[0].parent}"]
    assert not list(tmp_path.rglob("*.partial"))


def cut(data):
    return data[: len(data) // 2]


def turn_one_bit(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize("damage", [cut, turn_one_bit, lambda data: b""])
def test_a_damaged_kernel_is_compiled_again_and_replaced(tmp_path, damage):
    use(tmp_path)
    (file,) = kernels(tmp_path)
    good = file.read_bytes()
    file.write_bytes(damage(good))
    after = use(tmp_path)
    assert after["compiled"]
    assert "cannot be used" in after["complaint"]
    assert "\n" not in after["complaint"]
    healed = use(tmp_path)
    assert (healed["compiled"], healed["complaint"]) == (False, "")


def test_what_unpickles_to_something_else_is_compiled_again(tmp_path):
    import hashlib
    import pickle

    use(tmp_path)
    (file,) = kernels(tmp_path)
    data = pickle.dumps(("no", "kernel"))
    file.write_bytes(hashlib.sha256(data).digest() + data)
    assert "cannot be used" in use(tmp_path)["complaint"]
    assert use(tmp_path)["complaint"] == ""


def test_a_folder_in_place_of_a_kernel_does_not_end_the_run(tmp_path):
    use(tmp_path)
    (file,) = kernels(tmp_path)
    file.unlink()
    file.mkdir()
    found = use(tmp_path)
    assert found["compiled"]
    assert found["complaint"]


@pytest.mark.parametrize(
    ("cache", "home"), [("", "/proc/nobody"), ("", "a file"), ("/proc/cache", "/tmp")]
)
@pytest.mark.skipif(sys.platform != "linux", reason="folders that not even root can write")
def test_where_nothing_can_be_written_it_works_and_says_what_to_set(tmp_path, cache, home):
    file = tmp_path / "file"
    file.write_text("")
    home = str(file / "home") if home == "a file" else home
    found = use(cache, NOWHERE, HOME=home, XDG_CACHE_HOME=f"{home}/.cache")
    assert found["compiled"]
    assert "set NUMBA_CACHE_DIR" in found["complaint"]
    assert "\n" not in found["complaint"]
    usable, why = found["keeping"]
    assert not usable
    assert "set NUMBA_CACHE_DIR" in why


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that not even root can write")
def test_what_cannot_be_written_in_one_folder_is_kept_in_the_next(tmp_path):
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    first = use("", NOWHERE, **environment)
    assert (first["compiled"], first["complaint"]) == (True, "")
    assert not use("", NOWHERE, **environment)["compiled"]


def test_a_cache_of_somebody_else_is_read_but_need_not_be_writable(tmp_path):
    use(tmp_path)
    found = use(tmp_path, "import cellrt.compiled as c\nc._write = None\n" + USE)
    assert (found["compiled"], found["complaint"]) == (False, "")


@pytest.mark.parametrize("number", ["ENOSPC", "EROFS"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, number):
    full = f"""
import errno, pathlib
real = pathlib.Path.write_bytes
def write_bytes(self, data):
    real(self, data[: len(data) // 2])
    raise OSError(errno.{number}, "no more")
pathlib.Path.write_bytes = write_bytes
{USE}"""
    found = use(tmp_path, full)
    assert found["compiled"]
    assert "no more" in found["complaint"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_kernels_of_former_sources_are_removed_and_no_others(tmp_path):
    use(tmp_path)
    (file,) = kernels(tmp_path)
    place, sources, processor = file.parent.name.split("-")
    former = file.parent.rename(file.parent.with_name(f"{place}-former-{processor}"))
    kept = [file.parent.with_name(f"other-{sources}-{processor}")]
    kept += [file.parent.with_name(f"{place}-{sources}-other")]
    for folder in kept:
        folder.mkdir()
    use(tmp_path)
    assert not former.exists()
    assert all(folder.exists() for folder in kept)
    assert file.exists()


def test_every_constant_in_a_kernel_lies_where_a_change_is_seen():
    """Kernels are named after the modules that mention this one; constants come from these."""
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    seen = {path for path, text in sources.items() if "cellrt.compiled" in text}
    for path in seen:
        tree = ast.parse(sources[path])
        origin = {
            (alias.asname or alias.name): node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellrt.")
            for alias in node.names
        }
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef) or not {"compiled", "inlined"} & {
                name.id for name in function.decorator_list if isinstance(name, ast.Name)
            }:
                continue
            names = {
                n.id for part in function.body for n in ast.walk(part) if isinstance(n, ast.Name)
            }
            for name in names & origin.keys() - {"compiled", "inlined"}:
                module = PACKAGE.parent / (origin[name].replace(".", "/") + ".py")
                assert module in seen, f"{function.name} in {path} takes {name} from {module}"


def test_a_damaged_kernel_is_a_warning_of_one_run_of_the_command_line(tmp_path):
    image, cache = tmp_path / "image.npy", tmp_path / "cache"
    np.save(image, np.random.default_rng(1).integers(0, 900, (16, 32, 32), np.uint16))
    options = ["--diameter", "12", "--no-preview", "--overwrite"]

    def segment():
        done = subprocess.run(
            [sys.executable, "-m", "cellrt", "segment", image, *options],
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "image.run.json").read_text())
        damaged = sum("cannot be used" in text for text in record["warnings"])
        assert done.stderr.count("cannot be used") == damaged
        return damaged, done.stderr.count("compiling for this processor, once")

    assert segment() == (0, 1)
    for file in kernels(cache)[::10]:
        file.write_bytes(b"damaged")
    assert segment() == (1, 1)
    assert segment() == (0, 0)
